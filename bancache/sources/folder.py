"""An ImageFolder tree: ``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bancache.errors import DataError
from bancache.sources.decoded import open_kept
from bancache.sources.image_set import ImageSet
from bancache.sources.pictures import Pictures
from bancache.sources.request import Request

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# The first directory that exists is the split.
_DIRECTORIES = {"train": ("train",), "test": ("test", "val", "validation")}


def open_images(request: Request) -> ImageSet:
    """Return a split: classes sorted by name, and in each class files sorted by name, with subdirectories."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    directories = {split: _find_split(place, split) for split in _DIRECTORIES}
    directory = directories[request.split]
    if directory is None:
        names = " or ".join(_DIRECTORIES[request.split])
        raise DataError(
            f"{request.name}: {place} has no directory {names}",
            hint="lay it out as train/CLASS/ and test/CLASS/",
        )
    classes = _classes(directory)
    _check_agreement(
        request, {split: _classes(path) for split, path in directories.items() if path is not None}
    )
    files = [_files(request, directory / name) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(of_class) for of_class in files])
    flat = [file for of_class in files for file in of_class]

    def stream() -> Iterator[tuple[str, Path]]:
        return ((str(file), file) for file in flat)

    return open_kept(request, flat, lambda: Pictures(labels, classes, stream))


def _find_split(place: Path, split: str) -> Path | None:
    return next((place / name for name in _DIRECTORIES[split] if (place / name).is_dir()), None)


def _classes(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _check_agreement(request: Request, classes: dict[str, tuple[str, ...]]) -> None:
    for split, names in classes.items():
        if not names:
            raise DataError(
                f"{request.name}: the {split} split has no classes",
                hint="put the images of a class into its own directory",
            )
    if len(classes) == 2 and classes["train"] != classes["test"]:
        odd = min(set(classes["train"]) ^ set(classes["test"]))
        has, lacks = ("train", "test") if odd in classes["train"] else ("test", "train")
        raise DataError(
            f"{request.name}: class '{odd}' is in {has} but not in {lacks} "
            f"({len(classes['train'])} and {len(classes['test'])} classes)",
            hint="give both splits the same classes",
        )


def _files(request: Request, directory: Path) -> list[Path]:
    files = sorted(p for p in directory.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(
            f"{request.name}: {directory} has no images",
            hint="remove the class, or add files such as .png or .jpg",
        )
    return files
