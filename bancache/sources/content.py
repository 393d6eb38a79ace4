"""What is known of the pixels of a split: their fingerprint, and mean and standard deviation of each channel.

Pictures that are not in memory have the ones that they would have there.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.system.fingerprint import add_arrays, begin_array, fingerprint_arrays
from bancache.system.ragged import Images, RaggedImages, as_ragged
from bancache.system.read_ahead import in_order, num_threads
from bancache.system.stored import AnyImages, StoredImages

_BLOCK_BYTES = 1 << 24
_ROW_BYTES = 1 << 16
_BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, in units of 0..255; a constant channel has 1.0."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Known:
    """Values computed while the pixels were decoded, kept so that the pixels need not be read again."""

    fingerprint: str
    statistics: Statistics


def fingerprint_images(images: Images, labels: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return the sha256 of pixels, labels ``(N,)`` and class names. Frozen: caches and checkpoints store it."""
    pixels: list[tuple[str, NDArray[Any]]]
    if isinstance(images, RaggedImages):
        pixels = [("pixels", images.flat), ("heights", images.heights), ("widths", images.widths)]
    else:
        pixels = [("images", images)]
    return fingerprint_arrays([*pixels, ("labels", labels), ("classes", _names(classes))])


def _names(classes: tuple[str, ...]) -> NDArray[np.uint8]:
    # As JSON, different lists of names give different bytes.
    return np.frombuffer(json.dumps(classes).encode(), np.uint8)


@dataclass
class Sums:
    """Sums of the values of each channel and of their squares, integers of any size.

    Attributes:
        pixels: How many were added.
        total: For each channel.
        squares: For each channel.
    """

    pixels: int
    total: list[int]
    squares: list[int]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], channels: int) -> Sums:
        """Return the sums of whole pixels, uint8 of any shape whose last channels are side by side; other threads run meanwhile."""
        flat, sums = pixels.reshape(-1), cls(pixels.size // channels, [0] * channels, [0] * channels)
        # Rows of many: sums over few columns are slow.
        width = min(max(1, math.isqrt(sums.pixels)), _ROW_BYTES) * channels
        whole = flat.size // width * width
        for rows in (flat[:whole].reshape(-1, width), flat[None, whole:]):
            total = rows.sum(axis=0, dtype=np.uint64).reshape(-1, channels)
            squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint64)  # 255^2 fits
            sums._add(total.sum(axis=0).tolist(), squares.reshape(-1, channels).sum(axis=0).tolist())
        return sums

    def add(self, more: Sums) -> None:
        """Add the sums of other pixels."""
        self.pixels += more.pixels
        self._add(more.total, more.squares)

    def _add(self, total: list[int], squares: list[int]) -> None:
        for kept, new in ((self.total, total), (self.squares, squares)):
            kept[:] = [a + b for a, b in zip(kept, new, strict=True)]

    def statistics(self) -> Statistics:
        """Return mean and standard deviation of each channel."""
        pixels, pairs = self.pixels, list(zip(self.total, self.squares, strict=True))
        deviations = (math.sqrt(pixels * q - s * s) / pixels or 1.0 for s, q in pairs)
        return Statistics(tuple(s / pixels for s, _ in pairs), tuple(deviations))


@dataclass
class Running:
    """Fingerprint and statistics of pictures that come one by one and are never in memory together.

    The hash begins with the number of pictures and pixels, and says whether all have one size: this must be known before.

    Attributes:
        samples: How many pictures will come.
        pixels: How many pixels all of them have.
        channels: 1 for gray, 3 for color.
        size: Height and width of every picture, or None if they differ.
    """

    samples: int
    pixels: int
    channels: int
    size: tuple[int, int] | None
    _heights: array[int] = field(default_factory=lambda: array("i"), init=False)
    _widths: array[int] = field(default_factory=lambda: array("i"), init=False)

    def __post_init__(self) -> None:
        self._digest, self._sums = hashlib.sha256(), Sums(0, [0] * self.channels, [0] * self.channels)
        if self.size is None:
            begin_array(self._digest, "pixels", _BYTE, (self.pixels * self.channels,))
        else:
            begin_array(self._digest, "images", _BYTE, (self.samples, *self.size, self.channels))

    @classmethod
    def like(cls, images: StoredImages) -> Running:
        """Return one for pictures whose sizes are known."""
        return cls(len(images), images.nbytes // images.channels, images.channels, images.size)

    def add(self, pixels: NDArray[np.uint8], sums: Sums) -> None:
        """Add the next picture, ``(H, W, C)``, and its sums."""
        self._digest.update(np.ascontiguousarray(pixels).data)
        self._heights.append(pixels.shape[0])
        self._widths.append(pixels.shape[1])
        self._sums.add(sums)

    def seen(self) -> Running:
        """Return one for the pictures that came, which may be others than were expected."""
        sizes = set(zip(self._heights, self._widths, strict=True))
        size = sizes.pop() if len(sizes) == 1 else None
        return Running(len(self._heights), self._sums.pixels, self.channels, size)

    def is_like(self, other: Running) -> bool:
        """Return whether the hash of both begins in the same way."""
        return (self.samples, self.pixels, self.size) == (other.samples, other.pixels, other.size)

    def known(self, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Known:
        """Return fingerprint and statistics, after the last picture."""
        sides = [("heights", self._heights), ("widths", self._widths)] if self.size is None else []
        arrays: list[tuple[str, NDArray[Any]]] = [(name, np.array(each, np.int32)) for name, each in sides]
        add_arrays(self._digest, [*arrays, ("labels", labels), ("classes", _names(classes))])
        return Known(self._digest.hexdigest(), self._sums.statistics())


def read_known(images: StoredImages, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Known:
    """Return the fingerprint and the statistics that pictures would have in memory, in one pass over all of them."""

    def read(sample: int) -> tuple[NDArray[np.uint8], Sums]:
        pixels = images.read(sample)
        return pixels, Sums.of(pixels, images.channels)

    running = Running.like(images)
    jobs = (partial(read, sample) for sample in range(len(images)))
    for pixels, sums in in_order(jobs, ahead=2 * num_threads()):
        running.add(pixels, sums)
    return running.known(labels, classes)


def channel_statistics(images: Images) -> Statistics:
    """Return mean and standard deviation of each channel, over all pixels.

    Sums are integers, so the result does not depend on block size or machine.

    >>> channel_statistics(np.array([0, 0, 255, 255], np.uint8).reshape(1, 2, 2, 1))
    Statistics(mean=(127.5,), std=(127.5,))
    """
    flat, channels = as_ragged(images).flat, channels_of(images)
    sums, step = Sums(0, [0] * channels, [0] * channels), _BLOCK_BYTES // channels * channels
    for start in range(0, flat.size, step):
        sums.add(Sums.of(flat[start : start + step], channels))
    return sums.statistics()


def channels_of(images: AnyImages) -> int:
    """Return 1 for gray pictures, 3 for color."""
    return int(images.shape[3]) if isinstance(images, np.ndarray) else images.channels
