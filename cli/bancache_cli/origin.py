"""Opening what a cache was made from, by what the cache itself remembers: its teacher and its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bancache_cli import console

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.sources.base import ImageSet
    from bancache.teacher import Teacher

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
    """Load the teacher that a cache was made from, to be asked with the cache's precision."""
    from bancache.teacher import load_teacher

    return load_teacher(
        name or manifest.teacher["path"],
        device=device,
        weights=weights,
        precision=manifest.compute["precision"],
        shape=(len(images.classes), images.channels, images.height, images.width),
    )
