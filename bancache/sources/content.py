"""What is known of the pixels of a split: their fingerprint, and mean and standard deviation of each channel.

Pictures that are not in memory have the ones that they would have there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.system.fingerprint import Bytes, fingerprint_arrays
from bancache.system.ragged import Images, RaggedImages, as_ragged
from bancache.system.read_ahead import in_order, num_threads
from bancache.system.stored import AnyImages, StoredImages

_BLOCK_BYTES = 1 << 24
_ROW_BYTES = 1 << 16


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


def read_known(images: StoredImages, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Known:
    """Return the fingerprint and the statistics that pictures would have in memory, in one pass over all of them."""
    jobs = (partial(images.read, sample) for sample in range(len(images)))
    parts, one = in_order(jobs, ahead=2 * num_threads()), images.size
    shape = (images.nbytes,) if one is None else (len(images), *one, images.channels)
    return known_of(
        Bytes(shape, parts), lambda: (images.heights, images.widths), images.channels, labels, classes
    )


def known_of(
    pixels: Bytes,
    sides: Callable[[], tuple[NDArray[np.int32], NDArray[np.int32]]],
    channels: int,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Known:
    """Return the fingerprint and the statistics of pictures whose pixels come a picture at a time.

    Args:
        pixels: All pixels, (N, H, W, C), or (bytes,) if the pictures differ in size.
        sides: Returns heights and widths, int32 (N,) each; called after the last picture.
        channels: 1 for gray, 3 for color.
        labels: int64 (N,).
        classes: Class names.
    """
    sums = _Sums(channels)

    def parts() -> Iterator[NDArray[np.uint8]]:
        for picture in pixels.parts:
            sums.add(picture.reshape(-1))
            yield picture

    def arrays() -> Iterator[tuple[str, NDArray[Any] | Bytes]]:
        yield ("images" if len(pixels.shape) > 1 else "pixels"), Bytes(pixels.shape, parts())
        if len(pixels.shape) == 1:
            yield from zip(("heights", "widths"), sides(), strict=True)
        yield from (("labels", labels), ("classes", _names(classes)))

    fingerprint = fingerprint_arrays(arrays())
    return Known(fingerprint, sums.statistics())


def channel_statistics(images: Images) -> Statistics:
    """Return mean and standard deviation of each channel, over all pixels.

    Sums are integers, so the result does not depend on block size or machine.

    >>> channel_statistics(np.array([0, 0, 255, 255], np.uint8).reshape(1, 2, 2, 1))
    Statistics(mean=(127.5,), std=(127.5,))
    """
    flat, sums = as_ragged(images).flat, _Sums(channels_of(images))
    step = _BLOCK_BYTES // sums.channels * sums.channels
    for start in range(0, flat.size, step):
        sums.add(flat[start : start + step])
    return sums.statistics()


class _Sums:
    """Sums of the values of each channel and of their squares."""

    def __init__(self, channels: int) -> None:
        self.channels, self._pixels = channels, 0
        self._sums = [[0, 0] for _ in range(channels)]

    def add(self, flat: NDArray[np.uint8]) -> None:
        """Add whole pixels, in rows of many: sums over few columns are slow."""
        channels = self.channels
        self._pixels += flat.size // channels
        width = min(math.isqrt(flat.size // channels), _ROW_BYTES) * channels
        whole = flat.size // width * width
        for rows in (flat[:whole].reshape(-1, width), flat[None, whole:]):
            total = rows.sum(axis=0, dtype=np.uint64)
            squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint64)  # 255^2 fits
            for channel, kept in enumerate(self._sums):
                kept[0] += int(total[channel::channels].sum())
                kept[1] += int(squares[channel::channels].sum())

    def statistics(self) -> Statistics:
        """Return mean and standard deviation of each channel."""
        pixels = self._pixels
        deviations = (math.sqrt(pixels * q - s * s) / pixels or 1.0 for s, q in self._sums)
        return Statistics(tuple(s / pixels for s, _ in self._sums), tuple(deviations))


def channels_of(images: AnyImages) -> int:
    """Return 1 for gray pictures, 3 for color."""
    return int(images.shape[3]) if isinstance(images, np.ndarray) else images.channels
