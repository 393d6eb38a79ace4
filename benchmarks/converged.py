"""The answers that encodings are weighed on: those of a real teacher that has converged.

Encodings matter most where a teacher is sure, so it has to be trained until it is: WRN-16-2 on the first 5,000 images
of CIFAR-100, asked about eight views of the very images it was trained on. A thousand classes are made from the
same teacher: each class is split into ten by k-means of the teacher's features of its images, and a linear head is
trained on the features of the views to tell the thousand apart. Its logits have no more than 128 dimensions, so
codes that look for structure between classes would look too good on them; those here take each class for itself.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bancache.cache.info import describe
from bancache.cache.reader import open_cache
from bancache.models.teacher import load_teacher
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization
from bancache_cli import main as bancache

WORK = Path("runs/encodings")
DATA = ["--data", "parquet:../shared/data/cifar100", "--limit", "5000"]
RECIPE = ["--model", "wrn-16-2", "--recipe", "onecycle", "--epochs", "60", "--lr", "0.2"]
VIEWS = 8

SUBCLASSES, HEAD_VIEWS, HEAD_STEPS = 10, 4, 4000

Answers = list[torch.Tensor]


@dataclass(frozen=True)
class Source:
    """Where answers come from, as a result line says it.

    Attributes:
        name: ``cifar100`` or ``subclasses``.
        answers: One float32 (N, C) for each view index.
        confidence: Mean largest probability.
        accuracy: Of the teacher on these views.
        noise: What the teacher differs from itself by in bfloat16, where that was measured.
    """

    name: str
    answers: Answers
    confidence: float
    accuracy: float
    noise: dict[str, Any] | None = None

    def about(self) -> dict[str, Any]:
        """Return what every line from this source says of it."""
        entries = sum(len(part) for part in self.answers)
        sure = {"teacher_mean_max_probability": self.confidence, "teacher_accuracy": self.accuracy}
        classes = self.answers[0].shape[1]
        return {
            "source": self.name,
            "classes": classes,
            "entries": entries,
            **sure,
            "noise_floor": self.noise,
        }


def options(parser: argparse.ArgumentParser) -> None:
    """Add ``--teacher``, for who has trained it already."""
    parser.add_argument(
        "--teacher", type=Path, default=WORK / "teacher.pt", help="the converged teacher; trained if missing"
    )


def converged_cache(teacher: Path) -> Path:
    """Return a float32 cache of the converged teacher's answers; what is missing is trained and dumped first."""
    if not teacher.exists():
        command("train-teacher", *DATA, *RECIPE, "--out", str(teacher))
    cache = WORK / "float32.zarr"
    if (cache / "manifest.json").exists() and describe(cache)["complete"]:
        return cache
    dumped = ["--num-views", str(VIEWS), "--encoding", "float32", "--out", str(cache)]
    command("dump", "--teacher", str(teacher), *dumped)
    return cache


def hundred(cache: Path) -> Source:
    """Return the teacher's own answers, C = 100."""
    opened = open_cache(cache)
    answers = [
        torch.from_numpy(opened.read_view(view_index)["logits"])
        for view_index in range(opened.manifest.num_views)
    ]
    summary = opened.summary
    return Source(
        "cifar100",
        answers,
        summary["teacher_mean_max_probability"],
        summary["teacher_accuracy"],
        summary["noise_floor"],
    )


def thousand(cache: Path, teacher: Path) -> Source:
    """Return answers about ten sub-classes of each class, C = 1000."""
    spec = DataSpec.from_dict(open_cache(cache).manifest.dataset["spec"])
    data = spec.open("train")
    features = _features(teacher, data, ViewSpace.from_dict(open_cache(cache).manifest.view_space))
    labels = torch.from_numpy(_subclasses(features[0].numpy(), data.labels))
    scale = features.flatten(0, 1).std(dim=0).clamp(min=1e-3)
    views = features[1:] / scale
    head = _train_head(views.flatten(0, 1), labels.repeat(HEAD_VIEWS), int(labels.max()) + 1)
    with torch.no_grad():
        answers = [head(part) for part in views]
    sure = torch.cat([torch.softmax(part, dim=1).amax(dim=1) for part in answers]).mean()
    right = torch.cat([part.argmax(dim=1) == labels for part in answers]).float().mean()
    return Source("subclasses", answers, float(sure), float(right))


def invented(classes: int, rows: int = 64) -> Source:
    """Return made-up answers of a sure teacher, for ``--quick`` alone."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((2, rows, classes), generator=rng) * 2
    logits[:, torch.arange(rows), torch.arange(rows) % classes] += 12
    return Source("invented", list(logits), 0.0, 0.0)


@torch.no_grad()
def _features(path: Path, data: Any, space: ViewSpace) -> torch.Tensor:
    """Return what the teacher's last layer sees of each image as it is, then of its first views: (1 + V, N, D)."""
    teacher = load_teacher(str(path), device=torch.device("cpu"))
    seen: list[torch.Tensor] = []
    layer: Any = teacher.model.last_layer
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    renderer = LatticeRenderer(data.images, space, Normalization.from_dict(teacher.header["normalisation"]))
    samples = np.arange(len(data))
    per_view = [
        np.full(len(data), space.identity),
        *(space.view_ids(samples, view_index) for view_index in range(HEAD_VIEWS)),
    ]
    for ids in per_view:
        for part in np.array_split(samples, max(1, len(data) // 250)):
            teacher.logits(renderer.render(torch.from_numpy(part), torch.from_numpy(ids[part])))
    return torch.stack(torch.cat(seen).chunk(len(per_view)))


def _subclasses(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split each class into ten by k-means of its images' features."""
    from sklearn.cluster import KMeans

    found = np.zeros_like(labels)
    for label in np.unique(labels):
        inside = labels == label
        means = KMeans(SUBCLASSES, n_init=4, random_state=0).fit(features[inside])
        found[inside] = label * SUBCLASSES + means.labels_
    return found


def _train_head(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.nn.Linear:
    """Train a linear classifier of features (M, D) by Adam on batches of 500, the rate falling along a cosine."""
    torch.manual_seed(0)
    head = torch.nn.Linear(features.shape[1], classes)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_STEPS)
    rng = torch.Generator().manual_seed(0)
    for _ in range(HEAD_STEPS):
        which = torch.randint(len(features), (500,), generator=rng)
        torch.autograd.backward(F.cross_entropy(head(features[which]), labels[which]))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return head


def command(*words: str) -> None:
    """Run a command of ours; what it prints goes to stderr, beside the lines of a benchmark."""
    with redirect_stdout(sys.stderr):
        status = bancache([*words, "-q"])
    if status:
        raise SystemExit(status)
