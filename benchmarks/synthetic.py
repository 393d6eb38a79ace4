"""Inputs of the benchmarks: random images of CIFAR's shape, teachers without training, caches in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.models import build_model
from bancache.models.checkpoint import fingerprint_state
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

CPU = torch.device("cpu")
NORMAL = Normalization((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


class Table(nn.Module):
    """Looks logits up by the first pixels: a teacher that costs almost nothing, with peaked targets like a trained one."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("rows", torch.randn((4096, classes), generator=generator) * 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes)."""
        key = (images[:, 0, 0, :4] * 977).abs().sum(dim=1).to(torch.int64) % 4096
        return self.rows[key]  # type: ignore[index, no-any-return]


def image_set(count: int, *, classes: int = 100, size: int = 32) -> ImageSet:
    """Return random images in color, the same at every call."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    names = tuple(str(number) for number in range(classes))
    return ImageSet(images, rng.integers(0, classes, count), names, "synthetic", "train")


def noise_file(folder: Path, count: int) -> DataSpec:
    """Write ``count`` random images of at least 100, one class after another, and say where."""
    images = image_set(count).images
    labels = np.arange(count) % 100
    arrays = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:100],
        "test_labels": labels[:100],
    }
    np.savez(folder / "random.npz", **arrays)  # type: ignore[arg-type]
    return DataSpec(f"npz:{folder / 'random.npz'}")


def teacher_of(net: nn.Module, name: str) -> Teacher:
    """Return a model as a teacher."""
    net.eval().requires_grad_(False)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(net, fingerprint_state(net.state_dict()), {"name": name}, path=name)


def net(name: str, classes: int = 100) -> nn.Module:
    """Return an untrained model for images of CIFAR's shape."""
    torch.manual_seed(0)
    return build_model(name, classes=classes, channels=3, image_size=(32, 32))


def settings(*, num_views: int = 1, batch_size: int = 128, encoding: str = "root4") -> DumpSettings:
    """Return the settings of a dump."""
    return DumpSettings(ViewSpace.parse("crop4-flip"), num_views, encoding, batch_size, NORMAL)


def cache_of(teacher: Teacher, data: ImageSet, out: Path, asked: DumpSettings) -> Cache:
    """Dump and return the cache."""
    return dump(teacher, data, DataSpec("digits"), out, asked, device=CPU).cache
