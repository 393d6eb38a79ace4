"""Opening what a cache was made from, by what the cache itself remembers: its teacher and its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bancache.errors import UsageError
from bancache_cli import console

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.models.teacher import Teacher
    from bancache.sources.base import ImageSet

CachePath = Annotated[Path, typer.Argument(help="What `bancache dump` wrote.")]
MaybeNet = Annotated[
    str | None, typer.Option(metavar="NET", help="The cache's teacher, if it is not where it was.")
]


def open_images(manifest: Manifest, data: str | None, reporter: console.Reporter) -> ImageSet:
    """Open the images that a cache was made for, where they were or where they are said to be."""
    from bancache.sources.spec import DataSpec

    return DataSpec.from_dict(manifest.dataset["spec"]).moved(data).open("train", progress=reporter)


def open_teacher(
    manifest: Manifest, images: ImageSet, name: str | None, weights: Path | None, device: torch.device
) -> Teacher:
    """Load the teacher that a cache was made from, to be asked with the cache's precision.

    Only ``name``, which the user typed, may choose code. The path in the manifest comes from whoever wrote the
    cache: it is opened as a checkpoint of ours or not at all.

    Raises:
        UsageError: No name was given, and the manifest's teacher is not a checkpoint.
        CheckpointError: The file is missing, damaged, or would execute code.
    """
    from bancache.models.teacher import is_foreign, load_checkpoint_teacher, load_teacher

    precision = manifest.compute["precision"]
    if name is None:
        recorded = manifest.teacher["path"]
        if is_foreign(recorded):
            raise UsageError(
                f"the cache's teacher is '{recorded}', which is not a checkpoint; a cache may not choose code to run",
                hint="if you trust it, name it yourself with --teacher",
            )
        if weights is not None:
            raise UsageError(
                "--weights are for a teacher that is named", hint="add --teacher, or leave out --weights"
            )
        return load_checkpoint_teacher(Path(recorded), device=device, precision=precision)
    return load_teacher(
        name,
        device=device,
        weights=weights,
        precision=precision,
        shape=(len(images.classes), images.channels, images.height, images.width),
    )
