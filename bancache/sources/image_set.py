"""ImageSet: images, labels and class names of one split; checked once, then trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError, UsageError
from bancache.sources.content import (
    Known,
    Statistics,
    channel_statistics,
    channels_of,
    fingerprint_images,
    read_known,
)
from bancache.system.ragged import ONE_SIZE, RaggedImages
from bancache.system.stored import AnyImages, StoredImages

__all__ = ["ImageSet", "Known", "Statistics", "channel_statistics", "fingerprint_images", "numbered_classes"]

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data source, in memory, mapped from a file, or read where it lies whenever a picture is needed.

    Attributes:
        images: uint8 ``(N, H, W, C)``, C-contiguous, read-only; C is 1 for gray and 3 for red, green, blue.
            ``bancache.system.ragged.RaggedImages`` if the pictures differ in size, and
            ``bancache.system.stored.StoredImages`` if they are not in memory.
        labels: int64 ``(N,)``, read-only, each in ``range(len(classes))``.
        classes: Unique names.
        name: The source as typed, such as ``"folder:photos"``.
        split: ``"train"`` or ``"test"``.
        known: Fingerprint and statistics, if already computed.
        paths: Where each picture comes from, a file or a row of one; None for a source of arrays.

    Raises:
        DataError: A shape, dtype, label or class name is invalid.
    """

    # Or RaggedImages or StoredImages. It is Any so that code for pictures of one size needs no check of the type.
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
        """Whether all pictures have one size, so that ``images`` is an array if they are in memory."""
        return self._one_size is not None

    @property
    def height(self) -> int:
        """Rows of pixels; UsageError if the pictures differ in size."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Columns of pixels; UsageError if the pictures differ in size."""
        return self._size[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every picture; UsageError if the pictures differ in size."""
        return *self._size, self.channels

    @cached_property
    def _one_size(self) -> tuple[int, int] | None:
        if isinstance(self.images, np.ndarray):
            height, width = self.images.shape[1:3]
            return height, width
        return self.images.size if isinstance(self.images, StoredImages) else None

    @property
    def _size(self) -> tuple[int, int]:
        images: Any = self.images
        if self._one_size is None:
            raise UsageError(
                f"{self.name}: one size is needed, the pictures of {self.split} are {images.span}",
                hint=ONE_SIZE,
            )
        return self._one_size

    @property
    def channels(self) -> int:
        """1 for gray, 3 for color."""
        return channels_of(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over pixels, their order, labels and class names, but not over name and split."""
        if isinstance(self.images, StoredImages):
            return self._stored.fingerprint
        if self.known is not None:
            return self.known.fingerprint
        return fingerprint_images(self.images, self.labels, self.classes)

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of each channel over all images."""
        if isinstance(self.images, StoredImages):
            return self._stored.statistics
        return self.known.statistics if self.known is not None else channel_statistics(self.images)

    @cached_property
    def _stored(self) -> Known:
        images: Any = self.images
        return self.known or read_known(images, self.labels, self.classes)

    @cached_property
    def chance(self) -> float:
        """The share of the most frequent label: the accuracy of naming it for every image."""
        return float(np.bincount(self.labels).max()) / len(self)

    def first(self, n: int) -> ImageSet:
        """Return the first ``n`` images, or all if there are fewer; the class names stay."""
        if n >= len(self):
            return self
        paths = self.paths and self.paths[:n]
        images = self.images.first(n) if isinstance(self.images, StoredImages) else self.images[:n]
        return ImageSet(images, self.labels[:n], self.classes, self.name, self.split, paths=paths)

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
        images = self.images.some(chosen) if isinstance(self.images, StoredImages) else self.images[chosen]
        return ImageSet(images, self.labels[chosen], self.classes, self.name, self.split, paths=paths)


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


def _plain_if_of_one_size(images: AnyImages) -> AnyImages:
    """Return pictures that have one size by chance as an array ``(N, H, W, C)``, so that equal content is equal data."""
    if isinstance(images, RaggedImages) and all(
        len(np.unique(s)) == 1 for s in (images.heights, images.widths)
    ):
        return images.flat.reshape(len(images), *images[0].shape)
    return images


def _check_images(images: AnyImages, name: str) -> None:
    if not isinstance(images, np.ndarray):
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
            hint="give one class number to each image"
            + ("; of one-hot rows, their argmax" if labels.ndim == 2 else ""),
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if wrong.size:
        raise DataError(
            f"{name}: label {labels[wrong[0]]} of image {wrong[0]} is not in 0..{len(classes) - 1}, "
            f"there are {len(classes)} classes",
            hint="a split without labels cannot be used; otherwise correct the labels or the class names",
        )
