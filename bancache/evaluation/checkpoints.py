"""Checkpoints and teachers on a test split: their predictions, their scores, and those of their ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from bancache.errors import MismatchError, UsageError
from bancache.evaluation.predict import Evaluator, Scores, ensemble, score
from bancache.models.answers import sum_to_one
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.models.names import is_third_party
from bancache.models.own_input import choose_input, own_size
from bancache.models.teacher import Teacher, build_from, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import choose_device
from bancache.system.progress import Progress, Silent
from bancache.views import Lattice, ViewSpace
from bancache.views.center import Center
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
    weights: PathLike | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | None = None,
    device: str | torch.device = "auto",
    download: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the scores of one model, or of several and their ensemble, on the test split.

    A model is a checkpoint, or named as for ``load_teacher``, with ``weights`` for the only one that needs them.
    ``mean`` and ``std``, in 0..1, are of the third-party models; by default they have those that timm and torchvision record.
    ``mean="data"`` stands for the statistics of the training split.

    The data is by default the first checkpoint's data set; a string such as ``"cifar100:data"`` keeps the image size
    that the checkpoint records. The device is ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        CheckpointError: A file is missing, damaged, not a checkpoint, would execute code, or does not fit its model.
        MismatchError: A model was trained on other classes than the data has.
        NonFiniteError: A model's logits are NaN or infinite.
        UsageError: There is no such device, no such model, no checkpoint, or no data.
    """
    paths = [checkpoints] if isinstance(checkpoints, str | os.PathLike) else list(checkpoints)
    if not paths:
        raise UsageError("no checkpoint to evaluate", hint="pass at least one path")
    device = choose_device(str(device))
    loaded = [None if is_third_party(os.fspath(path)) else load_checkpoint(Path(path)) for path in paths]
    if weights is not None and loaded.count(None) != 1:
        raise UsageError(
            f"--weights {os.fspath(weights)} is for one model, not for {loaded.count(None)}",
            hint="evaluate models with weights of their own one by one",
        )
    spec = _spec(paths[0], loaded, data)
    test = spec.open("test", download=download, progress=progress)
    predictions = []
    for path, checkpoint in zip(paths, loaded, strict=True):
        if checkpoint is None:
            predictions.append(
                _predict_foreign(
                    path, spec, test, weights, mean, std, device=device, progress=progress or Silent()
                )
            )
            continue
        _check_classes(path, checkpoint, test)
        amp = (checkpoint.header.get("recipe") or {}).get("amp", False)
        predictions.append(predict_with(checkpoint, test, device=device, amp=amp, progress=progress))
    members = tuple(score(each, test.labels) for each in predictions)
    return Evaluation(**asdict(score(ensemble(predictions), test.labels)), members=members)


def _predict_foreign(
    path: PathLike,
    spec: DataSpec,
    test: ImageSet,
    weights: PathLike | None,
    mean: Sequence[float] | str | None,
    std: Sequence[float] | None,
    *,
    device: torch.device,
    progress: Progress,
) -> NDArray[Any]:
    """Return the predictions of a third-party model, and say how its images are normalized."""
    size = own_size(os.fspath(path)) or (test.height, test.width)
    shape = (len(test.classes), test.channels, *size)
    teacher = load_teacher(path, device=device, weights=weights, shape=shape, progress=progress)
    of_data = _of_data(spec, progress) if mean == "data" else None
    given = choose_input(teacher.path, teacher.input, of_data or mean, std, test.channels)
    progress.note(
        f"{teacher.path}: images of {size[0]}x{size[1]} pixels, normalized by {given.normalization.text} ({given.origin})"
    )
    teacher = replace(teacher, input=given)
    return predict_with_teacher(teacher, test, size, device=device, progress=progress)


def _spec(first: PathLike, loaded: Sequence[Checkpoint | None], data: str | DataSpec | None) -> DataSpec:
    """Return the data set that was named, or that of the first checkpoint."""
    known = next((each.header["data"] for each in loaded if each is not None), None)
    if isinstance(data, DataSpec):
        return data
    if known is None and data is None:
        raise UsageError(f"model '{os.fspath(first)}' has no recorded data set", hint="add --data")
    return DataSpec.from_dict(known).moved(data) if known else DataSpec(str(data))


def _of_data(spec: DataSpec, progress: Progress | None) -> Normalization:
    statistics = spec.open("train", progress=progress).statistics
    return Normalization(statistics.mean, statistics.std)


class _Logits(nn.Module):
    """A third-party model as a module whose forward returns logits (B, classes) and nothing else."""

    def __init__(self, teacher: Teacher, classes: int) -> None:
        super().__init__()
        self._teacher, self._classes = teacher, classes
        self.probabilities = True  # until a row does not sum to 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self._teacher.logits(images)
        if logits.shape[1] != self._classes:
            raise MismatchError.between(
                f"classes of {self._teacher.path}",
                stored=logits.shape[1],
                given=self._classes,
                hint="name the data that it was trained on with --data",
            )
        self.probabilities = self.probabilities and sum_to_one(logits)
        return logits


def _check_classes(path: PathLike, checkpoint: Checkpoint, test: ImageSet) -> None:
    classes = checkpoint.header["classes"]
    if classes != list(test.classes):
        raise MismatchError.between(
            f"classes of {os.fspath(path)}",
            stored=f"{len(classes)} from '{classes[0]}' on",
            given=f"{len(test.classes)} from '{test.classes[0]}' on",
            hint="evaluate models of one data set together",
        )


def predict_with(
    checkpoint: Checkpoint,
    test: ImageSet,
    *,
    device: torch.device,
    amp: bool,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Return the probabilities of a checkpoint's model, tested as it was trained; result and errors as of ``Evaluator.predict``."""
    normalization = Normalization.from_dict(checkpoint.header["normalisation"])
    model = build_from(checkpoint).to(device)
    views = ViewSpace.from_dict(checkpoint.header["view_space"])
    height, width = checkpoint.header["architecture"]["image_size"]
    shown = Evaluator(test, normalization, device=device, views=views, size=(height, width), amp=amp)
    return shown.predict(model, progress)


def predict_with_teacher(
    teacher: Teacher,
    test: ImageSet,
    size: tuple[int, int],
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Return the probabilities of a teacher that sees ``size`` pixels, an ensemble's members each at its own size.

    Result and errors are those of ``Evaluator.predict``.
    """
    assert teacher.input is not None
    progress = progress or Silent()
    sizes = teacher.sizes or (size,)
    whole = test.uniform and all(test.height * width == test.width * height for height, width in sizes)
    own = ViewSpace.parse(teacher.header["views"]) if teacher.header else None
    model = _Logits(teacher, len(test.classes))
    views, normalization = own or (Lattice() if whole else Center()), teacher.input.normalization
    shown = Evaluator(test, normalization, device=device, views=views, size=size, sizes=teacher.sizes)
    found = shown.predict(model, progress)
    if model.probabilities:
        progress.warn(
            f"{teacher.path}: its outputs sum to 1, so they are probabilities: NLL, ECE and ensembles take them for logits"
        )
    if teacher.of_batches:
        progress.warn(
            f"{teacher.of_batches[0]} in {teacher.path} normalizes by the statistics of each batch, as in training"
        )
    return found
