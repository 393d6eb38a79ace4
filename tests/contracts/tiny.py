"""A data set that a tiny net learns in a second, and what to train on it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bancache.dumping import DumpResult, DumpSettings, dump
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.signals import Interrupt
from bancache.training import Recipe
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

CPU = torch.device("cpu")
CLASSES = ("stripes", "columns", "checks")
# Views of the small and of the large cache in tests of caches that grow and shrink.
FEW, MANY = 3, 5
# Ninety-six samples in three bytes each then make three shards a view index.
THREE_SHARDS = 120
RECIPE = Recipe(epochs=4, batch_size=16, lr=0.1, schedule="onecycle", weight_decay=5e-4)


def images(*, seed: int, count: int, size: int = 10) -> ImageSet:
    """Noisy patterns in color: rows, columns or squares."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    y, x = np.mgrid[0:size, 0:size]
    patterns = np.stack([y // 2 % 2, x // 2 % 2, (x // 2 + y // 2) % 2]) * 120 + 60
    noise = rng.integers(-50, 50, (count, size, size, 3))
    pixels = np.clip(patterns[labels][..., None] + noise, 0, 255).astype(np.uint8)
    return ImageSet(pixels, labels.astype(np.int64), CLASSES, f"tiny-{seed}", "train")


def architecture(name: str = "convnet-4") -> dict[str, Any]:
    """A net of a thousand parameters."""
    return {"name": name, "classes": 3, "channels": 3, "image_size": [10, 10], "dropout": 0.0}


def settings(teacher: Teacher, **changes: Any) -> DumpSettings:
    """Dump four views of each image in small batches."""
    values: dict[str, Any] = {
        "space": ViewSpace.parse("crop1-flip", seed=5),
        "num_views": 4,
        "encoding": "root4",
        "batch_size": 32,
        "normalization": Normalization.from_dict(teacher.header["normalisation"]),
    }
    return DumpSettings(**{**values, **changes})


def dump_tiny(
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    out: Path,
    *,
    overwrite: bool = False,
    interrupt: Interrupt | None = None,
    **changes: Any,
) -> tuple[DumpResult, Teacher]:
    """Dump with the tiny teacher."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    asked = settings(teacher, **changes)
    result = dump(teacher, data, spec, out, asked, device=CPU, overwrite=overwrite, interrupt=interrupt)
    return result, teacher


class After(Interrupt):
    """A wish to stop, after some shards."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self._left = shards

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        self._left -= 1
        if self._left < 0:
            self.signal_number = 15
        super().check(progress, hint)


def photographs(root: Path) -> DataSpec:
    """Write two pictures of each class, all of different sizes, for training, and one of each for testing."""
    pictures = {split: images(seed=seed, count=64, size=24) for seed, split in enumerate(("train", "test"))}
    for split, found in pictures.items():
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for index, sample in enumerate(np.flatnonzero(found.labels == number)[: 1 + (split == "train")]):
                pixels = found.images[sample, : 24 - 3 * number, : 12 + 5 * index]
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return DataSpec(f"folder:{root}")
