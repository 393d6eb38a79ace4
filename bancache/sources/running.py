"""Fingerprint and statistics of pictures that pass by once and are never in memory together."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.sources.image_set import Known, Statistics


@dataclass
class Sums:
    """Sums of values and squares of each channel, integers of any size."""

    total: list[int]
    squares: list[int]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Sums:
        """Return the sums of one picture ``(H, W, C)``; other threads run meanwhile."""
        rows = pixels.reshape(len(pixels), -1)
        total = rows.sum(axis=0, dtype=np.uint64)
        squares = np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint64)  # 255^2 fits
        channels = pixels.shape[2]
        return cls(*(each.reshape(-1, channels).sum(axis=0).tolist() for each in (total, squares)))


@dataclass
class Running:
    """The fingerprint of ``fingerprint_images``, of pictures that come one by one.

    The hash begins with the number of pictures and pixels, and says whether all have one size: this must be known before.

    Attributes:
        samples: How many pictures will come.
        pixels: How many pixels all of them have.
        channels: Bytes of a pixel.
        size: Height and width of every picture, or None if they differ.
    """

    samples: int
    pixels: int
    channels: int
    size: tuple[int, int] | None
    _heights: array[int] = field(default_factory=lambda: array("i"), init=False)
    _widths: array[int] = field(default_factory=lambda: array("i"), init=False)

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._sums = Sums([0] * self.channels, [0] * self.channels)
        if self.size is None:
            self._begin("pixels", np.dtype(np.uint8), (self.pixels * self.channels,))
        else:
            self._begin("images", np.dtype(np.uint8), (self.samples, *self.size, self.channels))

    def add(self, pixels: NDArray[np.uint8], sums: Sums) -> None:
        """Add the next picture, ``(H, W, C)``, and its sums."""
        self._digest.update(np.ascontiguousarray(pixels).data)
        self._heights.append(pixels.shape[0])
        self._widths.append(pixels.shape[1])
        for kept, new in ((self._sums.total, sums.total), (self._sums.squares, sums.squares)):
            kept[:] = [a + b for a, b in zip(kept, new, strict=True)]

    def seen(self) -> Running:
        """Return one for the pictures that came, which may be others than were expected."""
        sizes = set(zip(self._heights, self._widths, strict=True))
        pixels = sum(height * width for height, width in zip(self._heights, self._widths, strict=True))
        return Running(len(self._heights), pixels, self.channels, sizes.pop() if len(sizes) == 1 else None)

    def is_like(self, other: Running) -> bool:
        """Return whether the hash of both begins in the same way."""
        return (self.samples, self.pixels, self.size) == (other.samples, other.pixels, other.size)

    def known(self, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Known:
        """Return fingerprint and statistics, after the last picture."""
        names = np.frombuffer(json.dumps(classes).encode(), np.uint8)
        sides = [("heights", self._heights), ("widths", self._widths)] if self.size is None else []
        arrays: list[tuple[str, NDArray[Any]]] = [(name, np.array(each, np.int32)) for name, each in sides]
        for name, values in [*arrays, ("labels", labels), ("classes", names)]:
            self._begin(name, values.dtype, values.shape)
            self._digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
        return Known(self._digest.hexdigest(), self._statistics())

    def _begin(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Begin an array as ``fingerprint_arrays`` does."""
        self._digest.update(f"{name}\0{dtype.newbyteorder('<').str}\0{shape}\0".encode())

    def _statistics(self) -> Statistics:
        pixels = self.pixels
        pairs = list(zip(self._sums.total, self._sums.squares, strict=True))
        deviations = (math.sqrt(pixels * q - s * s) / pixels or 1.0 for s, q in pairs)
        return Statistics(tuple(s / pixels for s, _ in pairs), tuple(deviations))
