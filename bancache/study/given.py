"""Teachers that are there before a study from a file begins: checkpoints, and models of torchvision and timm with weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from bancache.errors import CheckpointError, MismatchError
from bancache.system.fingerprint import short

if TYPE_CHECKING:
    import torch

    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.study.arms import Arm


def require_there(arms: Iterable[Arm]) -> None:
    """Raise ``CheckpointError`` if the file of a given teacher is missing; it is not read."""
    for arm in arms:
        if arm.given is not None and not arm.given.file.exists():
            raise CheckpointError(
                f"arm {arm.name}: {arm.given.file} is missing", hint="correct its path in the file"
            )


def require_weights(given_as: str, fingerprint: str, expected: str) -> None:
    """Raise ``MismatchError`` unless a given teacher has the weights that the study began with."""
    if expected not in ("", fingerprint):
        raise MismatchError.between(
            f"{given_as}: weights",
            stored=f"'{short(expected)}' (the study began with)",
            given=f"'{short(fingerprint)}'",
            hint="name the teacher that the study began with, or choose another --out",
        )


def open_given(
    name: str, weights: str | None, data: ImageSet, device: torch.device
) -> tuple[Teacher, tuple[int, int]]:
    """Return a teacher on a device, and height and width of its views: its own, else those of the images.

    Args:
        name: A checkpoint, or ``torchvision:NAME`` or ``timm:NAME``, whose images are normalized as these libraries say.
        weights: A file with weights for a model of a library, else None.
        data: The training images.
        device: Where it runs.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the model.
        MismatchError: A checkpoint is of other classes than the images.
        UsageError: There is no such model, or nothing says how its images are normalized.
    """
    from bancache.models.own_input import choose_input, own_size
    from bancache.models.teacher import load_checkpoint_teacher, load_teacher

    if weights is None:
        teacher = load_checkpoint_teacher(name, device=device)
        if (classes := teacher.header["classes"]) != list(data.classes):
            raise MismatchError.between(
                f"classes of {name}",
                stored=f"{len(classes)} from '{classes[0]}' on",
                given=f"{len(data.classes)} from '{data.classes[0]}' on",
                hint="name a teacher of the classes of the study's data",
            )
        if (teacher.header.get("recipe") or {}).get("amp"):
            teacher = replace(teacher, precision="bfloat16")
        height, width = teacher.header["architecture"]["image_size"]
        return teacher, (height, width)
    size = own_size(name) or (data.height, data.width)
    teacher = load_teacher(
        name, device=device, weights=weights, shape=(len(data.classes), data.channels, *size)
    )
    return replace(teacher, input=choose_input(name, teacher.input, None, None, data.channels)), size
