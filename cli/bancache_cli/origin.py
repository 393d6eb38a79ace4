"""Opening the teacher and the images that a cache was made from, as its manifest names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bancache.errors import UsageError
from bancache_cli import console, options

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet

CachePath = options.CachePath
MaybeNet = Annotated[str | None, Option(metavar="MODEL", help="The cache's teacher (default: where it was).")]


def open_images(manifest: Manifest, data: str | None, reporter: console.Reporter) -> ImageSet:
    """Open the images that a cache was made for, at their recorded or their new location."""
    spec = options.RecordedDataOptions(data).spec(manifest.dataset["spec"])
    return spec.open("train", progress=reporter)


def open_teacher(
    manifest: Manifest, images: ImageSet, name: str | None, weights: Path | None, device: torch.device
) -> Teacher:
    """Load the teacher that a cache was made from, with the cache's precision.

    Only ``name``, which the user typed, may choose code. The path in the manifest may come from a stranger: it
    is opened as a bancache checkpoint or not at all.

    Raises:
        UsageError: No name was given, and the manifest's teacher is not a checkpoint.
        CheckpointError: The file is missing, damaged, or would execute code.
    """
    from bancache.models.teacher import is_third_party, load_checkpoint_teacher, load_teacher

    precision = manifest.compute["precision"]
    if name is None:
        recorded = manifest.teacher["path"]
        if is_third_party(recorded):
            raise UsageError(
                f"the cache's teacher is '{recorded}', which is not a checkpoint; a cache may not choose code to run",
                hint="if you trust it, name it yourself with --teacher",
            )
        if weights is not None:
            raise UsageError("--weights needs --teacher", hint="add --teacher, or leave out --weights")
        return load_checkpoint_teacher(Path(recorded), device=device, precision=precision)
    return load_teacher(
        name,
        device=device,
        weights=weights,
        precision=precision,
        shape=(len(images.classes), images.channels, images.height, images.width),
    )
