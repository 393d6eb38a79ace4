"""Arrays in an ``.npz``: train_images, train_labels, test_images, test_labels and, optionally, classes."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet, numbered_classes
from bancache.sources.pictures import arrays_in_memory
from bancache.sources.request import SPLITS, Request

_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def open_images(request: Request) -> ImageSet:
    """Return a split of the arrays, without pickle and without keeping a decoded copy."""
    file = request.existing_place(lambda place: place.is_file(), "file")
    with _naming(request), file.open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(
                f"{request.name} holds one array, not several by name", hint="write it with numpy.savez"
            )
        images = _array(request, arrays, f"{request.split}_images")
        labels = _labels(request, arrays, request.split)
        classes = _classes(request, arrays)
    # (N, H, W) means gray; ImageSet checks the shape.
    return arrays_in_memory(request, images[..., None] if images.ndim == 3 else images, labels, classes)


@contextlib.contextmanager
def _naming(request: Request) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        pickled = "allow_pickle" in str(error)
        reason = "it needs pickle, which can execute code" if pickled else str(error) or "it is empty"
        hint = "write plain arrays with numpy.savez" if pickled else "make the file again"
        raise DataError(f"{request.name} cannot be read: {reason}", hint=hint) from error


def _array(request: Request, arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in arrays:
        there = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{request.name} has no array '{name}'", hint=f"it holds {there}")
    return arrays[name]


def _labels(request: Request, arrays: Mapping[str, NDArray[Any]], split: str) -> NDArray[np.int64]:
    """Return int64 ``(N,)``; a column ``(N, 1)`` is accepted too."""
    labels = _array(request, arrays, f"{split}_labels")
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{request.name}: {split}_labels are {labels.dtype}, not integers", hint="number the classes"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return labels.astype(np.int64)


def _classes(request: Request, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    if "classes" in arrays:
        classes = arrays["classes"]
        if classes.dtype.kind != "U" or classes.ndim != 1:
            raise DataError(
                f"{request.name}: classes are {classes.dtype} of shape {classes.shape}, not one row of strings",
                hint="write numpy.array(['first', 'second'])",
            )
        return tuple(classes.tolist())
    # Both splits are read, so that they get the same classes even if one of them lacks the last class.
    present = [_labels(request, arrays, split) for split in SPLITS if f"{split}_labels" in arrays]
    return numbered_classes(np.concatenate([labels.reshape(-1) for labels in present]), request.name)
