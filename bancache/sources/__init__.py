"""Data sources: open a name such as ``folder:photos`` as an ImageSet.

Each kind is one module with one function ``open_images``, imported on first use. Importing this package loads neither
numpy nor torch.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from bancache.errors import UsageError
from bancache.sources.request import DECODER, SPLITS, Request, reading
from bancache.system.progress import Progress, Silent

if TYPE_CHECKING:
    from bancache.sources.image_set import ImageSet

# The form of each source, and the module whose open_images reads it.
SOURCES = {
    "digits": ("digits", "digits"),
    "cifar10": ("cifar10:ROOT", "torchvision"),
    "cifar100": ("cifar100:ROOT", "torchvision"),
    "fashion-mnist": ("fashion-mnist:ROOT", "torchvision"),
    "folder": ("folder:PATH", "folder"),
    "parquet": ("parquet:PATH", "parquet"),
    "npz": ("npz:FILE", "npz"),
    "pack": ("pack:FILE", "pack"),
}

_LARGEST_IMAGE = 4096
# Sources of pictures, whose statistics are known when they are opened.
_ENCODED = ("folder", "parquet", "pack")
_NEARLY_BLACK = 16


def open_source(
    source: str,
    split: str,
    *,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
    skip_bad: bool = False,
    decoder: int = DECODER,
) -> ImageSet:
    """Open one split of a source; decoded images are kept, and the next start maps them.

    Args:
        source: A kind and, except for digits, a path: ``"digits"``, ``"parquet:PATH"``.
        split: ``"train"`` or ``"test"``.
        image_size: Resize every image's shorter side to this many pixels, then crop the center square; None keeps
            each picture's own size.
        download: Download missing files; only for torchvision's data sets.
        progress: Receives progress of decoding; silent by default.
        cache_dir: Directory of decoded pixels instead of the user's cache directory.
        skip_bad: Leave out pictures that cannot be read, instead of refusing the source.
        decoder: Version of the rules by which pictures become pixels; data specs keep it.

    Raises:
        UsageError: The source, split or size is invalid.
        DataError: The source is missing or damaged, or its content makes no sense.

    >>> open_source("digits", "test").images.shape
    (359, 8, 8, 1)
    """
    kind, path = parse_source(source)
    check_image_size(image_size)
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'", hint=f"splits are {' and '.join(SPLITS)}")
    request = Request(
        source, kind, path, split, image_size, download, progress or Silent(), cache_dir, skip_bad, decoder
    )
    module = importlib.import_module(f"bancache.sources.{SOURCES[kind][1]}")
    with reading(source):
        images: ImageSet = module.open_images(request)
    note_missing_classes(images, request.progress)
    numbers = [name for name in images.classes if name.isdecimal()]
    if split == "train" and len(numbers) == len(images.classes) and numbers != sorted(numbers, key=int):
        request.progress.note(
            f"{source}: the numbers that name its classes are sorted as text: class 2 is '{numbers[2]}'"
        )
    if split == "train":
        _warn_of_classes(images, request.progress)
    if kind in _ENCODED:
        _warn_of_black(images, request.progress)
    return images


def _warn_of_classes(images: ImageSet, progress: Progress) -> None:
    """Warn of a single class, of one without a name, and of names that differ in spaces or capitals alone."""
    if len(images.classes) == 1:
        progress.warn(f"{images.name}: there is one class, '{images.classes[0]}', so nothing can be learned")
    seen: dict[str, str] = {}
    for name in images.classes:
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            progress.warn(f"{images.name}: classes '{other}' and '{name}' differ in spaces or capitals alone")
            break
    if "" in seen:
        progress.warn(f"{images.name}: a class has no name: are labels missing?")


def _warn_of_black(images: ImageSet, progress: Progress) -> None:
    """Warn of pixels that are nearly black: the mean of all, each weighted by itself, is at most the largest."""
    pairs = list(zip(images.statistics.mean, images.statistics.std, strict=True))
    if all(mean == 0 or mean * mean + std * std <= _NEARLY_BLACK * mean for mean, std in pairs):
        progress.warn(
            f"{images.name}: the pixels of {images.split} are nearly black, {max(pairs)[0]:.2g} of 255 on average; "
            f"were they scaled to 0..1?"
        )


def note_missing_classes(images: ImageSet, progress: Progress) -> None:
    """Say it if training images of some classes are missing, such as class 0 where labels begin at 1."""
    if images.split != "train":
        return
    import numpy as np

    present = set(np.unique(images.labels).tolist())
    missing = [name for index, name in enumerate(images.classes) if index not in present]
    if missing:
        progress.note(
            f"{images.name}: {len(missing):,} of {len(images.classes):,} classes have no training image, "
            f"such as '{missing[0]}'"
        )


def parse_source(source: str) -> tuple[str, str]:
    """Split a source into its kind and its path, which is empty for digits.

    Raises:
        UsageError: The kind is unknown, or a path is missing or not allowed.

    >>> parse_source("npz:data/toy.npz")
    ('npz', 'data/toy.npz')
    """
    kind, _, path = source.partition(":")
    if kind not in SOURCES:
        from bancache.sources.nearest import meant

        near = difflib.get_close_matches(kind, SOURCES, n=2)
        named = f"did you mean {' or '.join(near)}? " if near else ""
        known = ", ".join(form for form, _ in SOURCES.values())
        raise UsageError(f"unknown data source '{source}'", hint=f"{meant(source) or named}known: {known}")
    form = SOURCES[kind][0]
    if bool(path) != (":" in form):
        wrong = "has no path" if path else "needs a path"
        raise UsageError(f"data source '{source}' {wrong}", hint=f"write it as {form}")
    return kind, path


def check_image_size(image_size: int | None) -> None:
    """Raise UsageError for an image size out of range."""
    if image_size is not None and not 1 <= image_size <= _LARGEST_IMAGE:
        raise UsageError(
            f"image size {image_size} is not in 1..{_LARGEST_IMAGE} pixels",
            hint="for example --image-size 64",
        )
