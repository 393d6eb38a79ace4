"""Checkpoints on a test split: their scores, their ensembles, and how often two models agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bancache.errors import MismatchError, UsageError
from bancache.evaluation.predict import Scores, agreement, ensemble, predict, score
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.models.teacher import build_from
from bancache.report.results import Record
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import choose_device
from bancache.system.progress import Progress
from bancache.views.model_input import Normalization

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Evaluation(Scores):
    """Scores of the models' mean prediction (workshop paper, eq. 4), or of the only model; and of each ``member``."""

    members: tuple[Scores, ...] = ()


def evaluate(
    checkpoints: PathLike | Sequence[PathLike],
    *,
    data: str | DataSpec | None = None,
    device: str | torch.device = "auto",
    download: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the scores of one checkpoint, or of several and their ensemble, on the test split.

    The data is by default the first checkpoint's data set; a string such as ``"cifar100:data"`` keeps the image size
    that the checkpoint records. The device is ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        CheckpointError: A file is missing, damaged, not a checkpoint, or would execute code.
        MismatchError: A checkpoint was trained on other classes than the data has.
        NonFiniteError: A model's logits are NaN or infinite.
        UsageError: There is no such device, or no checkpoint.
    """
    paths = [checkpoints] if isinstance(checkpoints, str | os.PathLike) else list(checkpoints)
    if not paths:
        raise UsageError("no checkpoint to evaluate", hint="pass at least one path")
    device = choose_device(str(device))
    loaded = [load_checkpoint(Path(path)) for path in paths]
    spec = data if isinstance(data, DataSpec) else DataSpec.from_dict(loaded[0].header["data"]).moved(data)
    test = spec.open("test", download=download, progress=progress)
    predictions = []
    for path, checkpoint in zip(paths, loaded, strict=True):
        _check_classes(path, checkpoint, test)
        amp = checkpoint.header["recipe"]["amp"]
        predictions.append(_predict_with(checkpoint, test, device=device, amp=amp, progress=progress))
    members = tuple(score(each, test.labels) for each in predictions)
    return Evaluation(**asdict(score(ensemble(predictions), test.labels)), members=members)


@dataclass(frozen=True)
class Member:
    """A finished model: its name, such as ``BAN-1``, its checkpoint, and the sha256 of its weights."""

    name: str
    path: Path
    fingerprint: str


@dataclass
class MemberPredictions:
    """Predictions of members on one test split, each computed once, when it is first needed."""

    test: ImageSet
    device: torch.device
    amp: bool
    _predictions: dict[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, members: Sequence[Member]) -> Record:
        """Return the scores of the members' mean prediction (workshop paper, eq. 4)."""
        return asdict(score(ensemble([self._predict(member) for member in members]), self.test.labels))

    def agreements(self, member: Member, others: Sequence[Member]) -> list[Record]:
        """Return for each other model the share of images that both put into the same class."""
        own = self._predict(member)
        return [
            {"net": o.name, "weights": o.fingerprint, "share": agreement(own, self._predict(o))}
            for o in others
        ]

    def _predict(self, member: Member) -> NDArray[Any]:
        if member.fingerprint not in self._predictions:
            checkpoint = load_checkpoint(member.path)
            predictions = _predict_with(checkpoint, self.test, device=self.device, amp=self.amp)
            self._predictions[member.fingerprint] = predictions
        return self._predictions[member.fingerprint]


def _check_classes(path: PathLike, checkpoint: Checkpoint, test: ImageSet) -> None:
    classes = checkpoint.header["classes"]
    if classes != list(test.classes):
        raise MismatchError.between(
            f"classes of {os.fspath(path)}",
            stored=f"{len(classes)} from '{classes[0]}' on",
            given=f"{len(test.classes)} from '{test.classes[0]}' on",
            hint="evaluate models of one data set together",
        )


def _predict_with(
    checkpoint: Checkpoint,
    test: ImageSet,
    *,
    device: torch.device,
    amp: bool,
    progress: Progress | None = None,
) -> NDArray[Any]:
    normalization = Normalization.from_dict(checkpoint.header["normalisation"])
    model = build_from(checkpoint).to(device)
    return predict(model, test, normalization, device=device, amp=amp, progress=progress)
