"""Arrays in an ``.npz``: train_images, train_labels, test_images, test_labels and, optionally, classes."""

from __future__ import annotations

import contextlib
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet, numbered_classes
from bancache.sources.pictures import arrays_in_memory
from bancache.sources.pixels import scaled, white_of
from bancache.sources.remarks import NEARLY_BLACK
from bancache.sources.request import SPLITS, Request
from bancache.system.memory import require_memory

_BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_KNOWN = {"classes", *(f"{split}_{what}" for split in SPLITS for what in ("images", "labels"))}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_images(request: Request) -> ImageSet:
    """Return a split of the arrays, without pickle and without keeping a decoded copy."""
    file = request.existing_place(lambda place: place.is_file(), "file")
    with _naming(request), zipfile.ZipFile(file) as archive:
        arrays = _Arrays(request, archive)
        if unknown := sorted(set(arrays.members) - _KNOWN):
            request.progress.note(f"{request.name}: left out {', '.join(unknown)}")
        images = _images(request, arrays)
        labels = _labels(request, arrays, request.split)
        classes = _classes(request, arrays)
    return arrays_in_memory(request, images, labels, classes)


class _Arrays:
    """The arrays of an open archive by name."""

    def __init__(self, request: Request, archive: zipfile.ZipFile) -> None:
        self._request, self._archive = request, archive
        self.members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def read(self, name: str) -> NDArray[Any]:
        """Read an array, after a check that what its header says is what it holds, and fits the memory."""
        if name not in self.members:
            there = ", ".join(sorted(self.members)) or "nothing"
            way = f"rename one to {name}" if {*self.members} - _KNOWN else f"add {name}"
            raise DataError(f"{self._request.name} has no array '{name}'", hint=f"it holds {there}; {way}")
        info = self.members[name]
        with self._archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"{name} is an array of format {version}")
            shape, _, dtype = _HEADERS[version](stream)
            if dtype.hasobject:
                raise DataError(
                    f"{self._request.name} cannot be read: {name} needs pickle, which can execute code",
                    hint="write plain arrays with numpy.savez",
                )
            said, held = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
        if said != held:
            raise ValueError(f"{name} says that it has shape {shape}, {said:,} bytes, but holds {held:,}")
        require_memory(
            said, f"the {said:,} bytes of {name} in {self._request.name}", hint="use smaller images"
        )
        with self._archive.open(info) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


@contextlib.contextmanager
def _naming(request: Request) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = str(error) or "it is empty"
        raise DataError(
            f"{request.name} cannot be read: {reason}", hint="make the file again with numpy.savez"
        ) from error


def _images(request: Request, arrays: _Arrays) -> NDArray[Any]:
    """Return images ``(N, H, W, C)``; ``(N, H, W)`` means gray, and values of 16 bits become 8 bits."""
    images = arrays.read(f"{request.split}_images")
    if images.dtype.kind == "u" and images.dtype.itemsize == 2:
        names = [name for split in SPLITS if (name := f"{split}_images") in arrays.members]
        white = white_of(max(int(arrays.read(name).max(initial=0)) for name in names))
        request.progress.note(
            f"{request.name}: values of 16 bits became 8 bits: the value {white:,} is white"
        )
        images = (
            np.stack([scaled(image, white) for image in images]) if len(images) else images.astype(np.uint8)
        )
    if images.dtype == np.uint8 and images.size and (largest := int(images.max())) <= NEARLY_BLACK:
        request.progress.warn(
            f"{request.name}: the largest pixel of {request.split} is {largest} of 255; were the pixels scaled to 0..1?"
        )
    return images[..., None] if images.ndim == 3 else images


def _labels(request: Request, arrays: _Arrays, split: str) -> NDArray[np.int64]:
    """Return int64 ``(N,)``; a column ``(N, 1)`` is accepted too, and true means 1."""
    labels = arrays.read(f"{split}_labels")
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"{request.name}: {split}_labels are {labels.dtype}, not integers", hint="number the classes"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return labels.astype(np.int64)


def _classes(request: Request, arrays: _Arrays) -> tuple[str, ...]:
    if "classes" in arrays.members:
        classes = arrays.read("classes")
        if classes.dtype.kind != "U" or classes.ndim != 1:
            raise DataError(
                f"{request.name}: classes are {classes.dtype} of shape {classes.shape}, not one row of strings",
                hint="write numpy.array(['first', 'second'])",
            )
        return tuple(classes.tolist())
    # Both splits are read, so that they get the same classes even if one of them lacks the last class.
    present = [_labels(request, arrays, split) for split in SPLITS if f"{split}_labels" in arrays.members]
    return numbered_classes(np.concatenate([labels.reshape(-1) for labels in present]), request.name)
