"""Checkpoints and their ensemble, scored on a test split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bancache.errors import MismatchError, UsageError
from bancache.evaluation.predict import Scores, ensemble, predict, score
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.models.teacher import build_from
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import choose_device
from bancache.system.progress import Progress
from bancache.views.renderer import Normalization

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Evaluation(Scores):
    """Scores of the models' mean prediction (workshop paper, eq. 4), or of the only model.

    Attributes:
        members: Scores of each model alone, in the order of the checkpoints.
    """

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

    Args:
        checkpoints: A path or several.
        data: The data, such as ``"cifar100:data"``; by default the first checkpoint's training data. A string keeps
            the image size that the checkpoint records.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        download: Whether missing data may be downloaded.
        progress: Told how many images are done.

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
        header, model = checkpoint.header, build_from(checkpoint).to(device)
        normalization, amp = Normalization.from_dict(header["normalisation"]), header["recipe"]["amp"]
        predictions.append(predict(model, test, normalization, device=device, amp=amp, progress=progress))
    members = tuple(score(each, test.labels) for each in predictions)
    return Evaluation(**asdict(score(ensemble(predictions), test.labels)), members=members)


def _check_classes(path: PathLike, checkpoint: Checkpoint, test: ImageSet) -> None:
    classes = checkpoint.header["classes"]
    if classes != list(test.classes):
        raise MismatchError.between(
            f"classes of {os.fspath(path)}",
            stored=f"{len(classes)} from '{classes[0]}' on",
            given=f"{len(test.classes)} from '{test.classes[0]}' on",
            hint="evaluate models of one data set together",
        )
