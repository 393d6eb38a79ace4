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
from bancache.sources.remarks import remark_on
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
    remark_on(images, kind, request.progress)
    return images


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
