"""What a cache was made from, opened again: its images and its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bancache.errors import CheckpointError, UsageError
from bancache.models.names import is_third_party
from bancache_cli import options
from bancache_cli.teacher_files import check_files, with_weights
from bancache_cli.teachers import Weights

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress

MaybeTeacher = Annotated[
    list[str] | None,
    Option(
        "--teacher",
        metavar="MODEL",
        help="The cache's teacher (default: where it was); of an ensemble, give each.",
    ),
]


def open_images(manifest: Manifest, data: str | None, reporter: Progress) -> ImageSet:
    """Open the images that a cache was made for, at their recorded or their new location."""
    spec = options.RecordedDataOptions(data).spec(manifest.dataset["spec"])
    return spec.open("train", progress=reporter)


@dataclass(frozen=True)
class OriginOptions:
    """Where the images of a cache are now, and how its teacher runs again."""

    weights: Weights = None
    data: options.MaybeData = None
    device: options.Device = "auto"

    def check(self, cache: Path, names: list[str] | None) -> None:
        """Refuse a teacher that cannot be opened, without importing torch.

        Only ``names``, which the user typed, may choose code. The paths in the manifest may come from a stranger:
        they are opened as bancache checkpoints or not at all.

        Raises:
            UsageError: No name was given, and the manifest's teacher is not a checkpoint; or an ensemble needs other ones.
            CheckpointError: A file is missing.
        """
        from bancache.cache.manifest_io import manifest_of, read_manifest

        recorded = manifest_of(read_manifest(cache)).teacher_paths
        if names:
            for name, weights in with_weights(names, self.weights):
                check_files(name, weights)
            if len(names) != len(recorded):
                raise UsageError(
                    f"the cache's teachers are {len(recorded)}, and {len(names)} are given",
                    hint=f"give each with --teacher: {', '.join(recorded)}",
                )
            return
        for path in recorded:
            if is_third_party(path):
                raise UsageError(
                    f"the cache's teacher is '{path}', which is not a checkpoint; a cache may not choose code to run",
                    hint=f"if you trust it, name it yourself with --teacher{_each(recorded)}",
                )
            if self.weights:
                raise UsageError("--weights needs --teacher", hint="add --teacher, or leave out --weights")
            if not Path(path).exists():
                raise CheckpointError(
                    f"{path}, the cache's teacher, is missing",
                    hint=f"say where it is now with --teacher FILE{_each(recorded)}",
                )

    def open(
        self, cache: Path, names: list[str] | None, reporter: Progress
    ) -> tuple[Teacher, ImageSet, torch.device]:
        """Load the teacher that a cache was made from, with the cache's precision, and its images.

        Errors are those of ``check`` and of ``load_teacher``.
        """
        self.check(cache, names)
        from bancache.cache.reader import open_cache
        from bancache.dumping.recompute import load_again
        from bancache.system.device import choose_device

        device, manifest = choose_device(self.device), open_cache(cache).manifest
        images = open_images(manifest, self.data, reporter)
        named = with_weights(names, self.weights) if names else []
        return load_again(manifest, named, images, device, reporter), images, device


def _each(paths: list[str]) -> str:
    return f", and name all {len(paths)}" if len(paths) > 1 else ""
