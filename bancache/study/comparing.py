"""The lines of a study about models that are finished: ensembles, given teachers, and how far models are from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from bancache.evaluation.members import Member, MemberPredictions
from bancache.models.teacher import Teacher
from bancache.report.families import dicts_in
from bancache.report.results import Record
from bancache.sources.image_set import ImageSet
from bancache.study.arms import Arm, Study
from bancache.system.stored import StoredImages

# Training images on which finished models are compared, equally many of each class: as many as CIFAR's test images, and
# no more than are copied in memory without harm.
_TRAINING_IMAGES, _BYTES = 10_000, 1 << 30
_SCORES = ("accuracy", "error", "nll", "ece")


class Lines(Protocol):
    """The result lines of a study."""

    def records(self) -> list[Record]:
        """Return the lines so far."""

    def record(self, record: Record, *keys: str) -> None:
        """Append a line, unless one of its kind has the same values of ``keys``."""


def compare(
    study: Study,
    seed: int,
    member: Callable[[str], Member],
    splits: tuple[ImageSet, ImageSet],
    device: torch.device,
    lines: Lines,
) -> None:
    """Record the lines of a seed that are missing; ``member`` returns what the arm of a name has become."""
    data, test = splits
    on_test = MemberPredictions(test, device, study.amp)
    for arm in study.arms:
        if not arm.trains:
            record = _scored(study, seed, arm, member(arm.name))
            if not _is_known(record, "name", lines):
                more = {"test": on_test.scores(member(arm.name)), "seconds": 0.0}
                lines.record(record | more, "seed", "weights", "name")
        elif arm.beside:
            own = member(arm.name)
            record = {"kind": "agreement", "seed": seed, "net": own.name, "weights": own.fingerprint}
            # Older versions recorded no divergence; of two lines the last one counts.
            if not _is_known(
                record, "net", lines, lambda line: all("kl" in other for other in dicts_in(line, "with"))
            ):
                found = on_test.agreements(own, [member(name) for name in arm.beside])
                lines.record(
                    {**record, "with": found, "samples": len(test), "seconds": 0.0}, "weights", "net", "with"
                )
    if any(arm.line.get("kind") == "arm" for arm in study.arms):
        _on_training_images(study, seed, member, data, device, lines)


def _on_training_images(
    study: Study,
    seed: int,
    member: Callable[[str], Member],
    data: ImageSet,
    device: torch.device,
    lines: Lines,
) -> None:
    """Record how well the trained arms fit training images as they are, and how far they are from their teachers there."""
    missing = []
    for arm in study.arms:
        if arm.trains:
            own = member(arm.name)
            record = {"kind": "train", "seed": seed, "name": own.name, "weights": own.fingerprint}
            if not _is_known(record, "name", lines):
                missing.append((record, own, [member(name) for name in arm.beside]))
    if not missing:
        return
    some = data.first_of_each(_how_many(data))
    predictions = MemberPredictions(some, device, study.amp)
    for record, own, others in missing:
        scores = predictions.scores(own)
        more = {"train": {key: scores[key] for key in _SCORES}, "with": predictions.agreements(own, others)}
        lines.record({**record, **more, "samples": len(some), "seconds": 0.0}, "seed", "weights", "name")


def _how_many(data: ImageSet) -> int:
    if isinstance(data.images, StoredImages):  # nothing is copied
        return _TRAINING_IMAGES
    return min(_TRAINING_IMAGES, max(1, _BYTES // int(data.images[0].nbytes)))


def _scored(study: Study, seed: int, arm: Arm, member: Member) -> dict[str, Any]:
    """Return the line of an ensemble or a given teacher without its scores."""
    about: dict[str, Any] = {"weights": member.fingerprint}
    assert isinstance(member.source, tuple)
    if arm.members:
        about["weights"] = [part.fingerprint for part in member.source if isinstance(part, Member)]
    elif isinstance(teacher := member.source[0], Teacher):
        about |= {"teacher": teacher.architecture["name"], "out": teacher.path}
    return {
        "kind": arm.line["kind"],
        "name": arm.name,
        "seed": seed,
        "model": study.architecture["name"],
        **arm.line,
        **about,
    }


def _is_known(
    record: Record, name: str, lines: Lines, complete: Callable[[Record], bool] = lambda _: True
) -> bool:
    keys = ("kind", "seed", "weights", name)
    return any(
        all(other.get(key) == record[key] for key in keys) and complete(other) for other in lines.records()
    )
