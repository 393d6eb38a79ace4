"""What a cache was made from, opened again: its images and its teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import CheckpointError, MismatchError, UsageError
from bancache.models.names import is_third_party
from bancache.system.fingerprint import short
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

        taught = manifest_of(read_manifest(cache)).teacher
        recorded = _paths(taught)
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
        from bancache.models.teacher import load_checkpoint_teacher
        from bancache.system.device import choose_device

        device, manifest = choose_device(self.device), open_cache(cache).manifest
        images = open_images(manifest, self.data, reporter)
        if names:
            return self.load(names, manifest, images, device, reporter), images, device
        precision, paths = manifest.compute["precision"], _paths(manifest.teacher)
        teachers = [load_checkpoint_teacher(Path(path), device=device, precision=precision) for path in paths]
        return _together(teachers, manifest), images, device

    def load(
        self,
        names: list[str],
        manifest: Manifest,
        images: ImageSet,
        device: torch.device,
        reporter: Progress,
    ) -> Teacher:
        """Load the teacher that the user named, or the ensemble, with the cache's precision."""
        from bancache.models.teacher import load_teacher

        shape = (
            len(images.classes),
            images.channels,
            *(manifest.teacher_size or (images.height, images.width)),
        )
        teachers = [
            load_teacher(
                name,
                device=device,
                weights=weights,
                precision=manifest.compute["precision"],
                shape=shape,
                outputs=manifest.compute.get("outputs"),
                progress=reporter,
            )
            for name, weights in with_weights(names, self.weights)
        ]
        return _together(teachers, manifest)


def _paths(teacher: dict[str, Any]) -> list[str]:
    """Return the recorded paths of a cache's teacher, or of the teachers of its ensemble."""
    return [str(each.get("path", "")) for each in teacher.get("members", [teacher])]


def _each(paths: list[str]) -> str:
    return f", and name all {len(paths)}" if len(paths) > 1 else ""


def _together(teachers: list[Teacher], manifest: Manifest) -> Teacher:
    """Return the only teacher, or the ensemble, whose members have the inputs that the cache records.

    Raises:
        MismatchError: One of them is not in the cache's ensemble.
    """
    if "members" not in manifest.teacher:
        return teachers[0]
    from bancache.models.ensemble import ensemble
    from bancache.views.model_input import ModelInput, Normalization

    known = {member["fingerprint"]: member for member in manifest.teacher["members"]}
    members = []
    for teacher in teachers:
        if teacher.fingerprint not in known:
            raise MismatchError.between(
                f"{teacher.path}: teacher",
                stored=f"{', '.join(map(short, known))} (the cache's ensemble)",
                given=f"'{short(teacher.fingerprint)}'",
                hint="name the cache's own teachers with --teacher",
            )
        member = known[teacher.fingerprint]
        normalization = Normalization.from_dict(member["normalisation"])
        own = ModelInput(None, normalization, member["input"]["origin"])
        outputs = "probabilities" if member["outputs"] == "probabilities" else teacher.outputs
        members.append(replace(teacher, input=own, outputs=outputs))
    return ensemble(members, manifest.teacher["combine"])
