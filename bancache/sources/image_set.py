"""ImageSet: images, labels and class names of one split; checked once, then trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError, UsageError
from bancache.system.fingerprint import fingerprint_arrays
from bancache.system.ragged import ONE_SIZE, Images, RaggedImages, as_ragged
from bancache.system.stored import StoredImages

_BLOCK_BYTES = 1 << 24
_ROW_BYTES = 1 << 16
_MOST_CLASSES = 1_000_000


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


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data source, in memory or mapped from a file.

    Attributes:
        images: uint8 ``(N, H, W, C)``, C-contiguous, read-only; C is 1 for gray and 3 for red, green, blue.
            ``bancache.system.ragged.RaggedImages`` if the pictures differ in size.
        labels: int64 ``(N,)``, read-only, each in ``range(len(classes))``.
        classes: Unique names.
        name: The source as typed, such as ``"folder:photos"``.
        split: ``"train"`` or ``"test"``.
        known: Fingerprint and statistics, if already computed.
        paths: Where each picture comes from, a file or a row of one; None for a source of arrays.

    Raises:
        DataError: A shape, dtype, label or class name is invalid.
    """

    # Or RaggedImages: Any spares those who know that their pictures have one size a check of the type.
    images: NDArray[np.uint8] | Any = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    name: str
    split: str
    known: Known | None = field(default=None, repr=False)
    paths: Sequence[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _plain_if_of_one_size(self.images))
        _check_images(self.images, self.name)
        _check_classes(self.classes, self.name)
        _check_labels(self.labels, len(self.images), self.classes, self.name)
        if self.paths is not None and len(self.paths) != len(self):
            raise DataError(
                f"{self.name}: {len(self):,} images, but {len(self.paths):,} paths", hint="give one to each"
            )
        # Views, so that the caller's own arrays keep their flags; a mapped file stays mapped.
        for attribute in ("images", "labels"):
            if isinstance(array := getattr(self, attribute), np.ndarray):
                view = np.ascontiguousarray(array).view()
                view.flags.writeable = False
                object.__setattr__(self, attribute, view)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def uniform(self) -> bool:
        """Whether all pictures have one size, so that ``images`` is an array."""
        return isinstance(self.images, np.ndarray)

    @property
    def height(self) -> int:
        """Rows of pixels; UsageError if the pictures differ in size."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Columns of pixels; UsageError if the pictures differ in size."""
        return self._size[1]

    @property
    def _size(self) -> tuple[int, int]:
        if isinstance(self.images, RaggedImages):
            raise UsageError(
                f"{self.name}: one size is needed, the pictures of {self.split} are {self.images.span}",
                hint=ONE_SIZE,
            )
        height, width = self.images.shape[1:3]
        return height, width

    @property
    def channels(self) -> int:
        """1 for gray, 3 for color."""
        return _channels(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over pixels, their order, labels and class names, but not over name and split."""
        if self.known is not None:
            return self.known.fingerprint
        return fingerprint_images(self.images, self.labels, self.classes)

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of each channel over all images."""
        return self.known.statistics if self.known is not None else channel_statistics(self.images)

    @cached_property
    def chance(self) -> float:
        """The share of the most frequent label: the accuracy of naming it for every image."""
        return float(np.bincount(self.labels).max()) / len(self)

    def first(self, n: int) -> ImageSet:
        """Return the first ``n`` images, or all if there are fewer; the class names stay."""
        if n >= len(self):
            return self
        paths = self.paths and self.paths[:n]
        return ImageSet(self.images[:n], self.labels[:n], self.classes, self.name, self.split, paths=paths)

    def first_of_each(self, n: int) -> ImageSet:
        """Return ``n`` images, in their order: the first one of each class, then the second one, and so on.

        A folder is sorted by class, and its first images are of one class.
        """
        if n >= len(self):
            return self
        by_class = np.argsort(self.labels, kind="stable")
        sizes = np.bincount(self.labels, minlength=len(self.classes))
        place = np.empty(len(self), np.int64)
        place[by_class] = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = np.sort(np.argsort(place, kind="stable")[:n])
        paths = self.paths and tuple(self.paths[sample] for sample in chosen)
        images = self.images[chosen]
        return ImageSet(images, self.labels[chosen], self.classes, self.name, self.split, paths=paths)


def fingerprint_images(images: Images, labels: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return the sha256 of pixels, labels ``(N,)`` and class names. Frozen: caches and checkpoints store it."""
    names = np.frombuffer(
        json.dumps(classes).encode(), np.uint8
    )  # as JSON, different lists of names give different bytes
    pixels: list[tuple[str, NDArray[Any]]]
    if isinstance(images, RaggedImages):
        pixels = [("pixels", images.flat), ("heights", images.heights), ("widths", images.widths)]
    else:
        pixels = [("images", images)]
    return fingerprint_arrays([*pixels, ("labels", labels), ("classes", names)])


def numbered_classes(labels: NDArray[np.int64], name: str) -> tuple[str, ...]:
    """Return class names "0", "1", … for a source ``name`` that has labels ``(N,)`` but no names.

    Raises:
        DataError: A label is too large to be a class number.

    >>> numbered_classes(np.array([2, 0]), "npz:toy.npz")
    ('0', '1', '2')
    """
    largest = int(labels.max(initial=-1))
    if largest >= _MOST_CLASSES:
        raise DataError(
            f"{name}: label {largest} is no class number, at most {_MOST_CLASSES:,} make sense",
            hint="number the classes from 0",
        )
    return tuple(str(number) for number in range(largest + 1))


def channel_statistics(images: Images) -> Statistics:
    """Return mean and standard deviation of each channel, over all pixels.

    Sums are integers, so the result does not depend on block size or machine.

    >>> channel_statistics(np.array([0, 0, 255, 255], np.uint8).reshape(1, 2, 2, 1))
    Statistics(mean=(127.5,), std=(127.5,))
    """
    channels, flat = _channels(images), as_ragged(images).flat
    pixels = flat.size // channels
    # uint64 holds the sum of squares of 2^48 pixels.
    width = min(pixels // len(images), _ROW_BYTES) * channels
    total, squares = np.zeros((2, width), np.uint64)
    step = _BLOCK_BYTES // width * width
    for start in range(0, flat.size, step):
        block = flat[start : start + step]
        whole = len(block) // width * width
        for rows in (block[:whole].reshape(-1, width), block[None, whole:]):
            total[: rows.shape[1]] += rows.sum(axis=0, dtype=np.uint64)
            squares[: rows.shape[1]] += np.square(rows, dtype=np.uint16).sum(
                axis=0, dtype=np.uint64
            )  # 255^2 fits
    mean, std = [], []
    for channel in range(channels):
        s, q = (int(sums[channel::channels].sum()) for sums in (total, squares))
        mean.append(s / pixels)
        std.append(math.sqrt(pixels * q - s * s) / pixels or 1.0)
    return Statistics(tuple(mean), tuple(std))


def _channels(images: Images) -> int:
    return images.channels if isinstance(images, RaggedImages | StoredImages) else int(images.shape[3])


def _plain_if_of_one_size(images: Images) -> Images:
    """Return pictures that have one size by chance as an array ``(N, H, W, C)``, so that equal content is equal data."""
    if isinstance(images, RaggedImages) and all(
        len(np.unique(s)) == 1 for s in (images.heights, images.widths)
    ):
        return images.flat.reshape(len(images), *images[0].shape)
    return images


def _check_images(images: Images, name: str) -> None:
    if isinstance(images, RaggedImages | StoredImages):
        if images.channels not in (1, 3) or not len(images):
            raise DataError(
                f"{name}: {len(images):,} pictures of {images.channels} channels",
                hint="gray pictures have 1, color pictures 3",
            )
        return
    if images.dtype != np.uint8:
        raise DataError(f"{name}: images are {images.dtype}, not uint8", hint="convert them to 0..255 first")
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{name}: images have shape {images.shape}, not (N, H, W, 1) or (N, H, W, 3)",
            hint="put the channel last; gray images have 1, color images 3",
        )
    if not images.size:
        raise DataError(f"{name}: there is no image, shape {images.shape}", hint="check the path")


def _check_classes(classes: tuple[str, ...], name: str) -> None:
    seen: dict[str, int] = {}
    for index, title in enumerate(classes):
        if title in seen:
            raise DataError(
                f"{name}: classes {seen[title]} and {index} are both named '{title}'",
                hint="rename one of them",
            )
        seen[title] = index


def _check_labels(labels: NDArray[np.int64], samples: int, classes: tuple[str, ...], name: str) -> None:
    if labels.dtype != np.int64:
        raise DataError(f"{name}: labels are {labels.dtype}, not int64", hint="labels are class numbers")
    if labels.shape != (samples,):
        raise DataError(
            f"{name}: {samples:,} images, but labels of shape {labels.shape}",
            hint="give one label to each image",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if wrong.size:
        raise DataError(
            f"{name}: label {labels[wrong[0]]} of image {wrong[0]} is not in 0..{len(classes) - 1}, "
            f"there are {len(classes)} classes",
            hint="a split without labels cannot be used; otherwise correct the labels or the class names",
        )
