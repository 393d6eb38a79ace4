"""With very many classes, what is dense and floating is never larger than a batch; what is kept are codes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.tiny import CPU
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.encodings.fidelity import rows_at_once
from bancache.loader.cache_targets import CacheTargets
from bancache.losses import soft_cross_entropy
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

SAMPLES, NUM_VIEWS, BATCH = 160, 2, 32


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size in bytes of the largest floating tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for tensor in returned if isinstance(returned, tuple | list) else [returned]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return returned


class Net(nn.Module):
    """Answers with many classes from the mean color, in one multiplication."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, classes, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) @ self.weight


def dump_many(path: Path, classes: int, profile: str) -> tuple[Cache, int]:
    """Dump, and return the size of the largest floating tensor that took."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SAMPLES, 4, 4, 3)).astype(np.uint8)
    names = tuple(str(number) for number in range(classes))
    data = ImageSet(pixels, rng.integers(0, classes, SAMPLES), names, "many", "train")
    settings = DumpSettings(
        space=ViewSpace.parse("crop1-flip", seed=0),
        num_views=NUM_VIEWS,
        encoding="root4",
        batch_size=BATCH,
        normalization=Normalization((128.0,) * 3, (20.0,) * 3),
        profile=profile,
    )
    teacher = Teacher(Net(classes), "0" * 64, {"name": "many"})
    with Largest() as largest:
        result = dump(teacher, data, DataSpec("npz:many.npz"), path, settings, device=CPU)
    return result.cache, largest.size


@pytest.fixture(scope="module", params=[(1000, "default"), (21_843, "default"), (21_843, "compact")], ids=str)
def dumped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Cache, int]:
    classes, profile = request.param
    return classes, *dump_many(tmp_path_factory.mktemp("many") / "a.zarr", classes, profile)


def test_a_dump_holds_a_batch_in_float64_and_no_more(dumped: tuple[int, Cache, int]) -> None:
    """The measurement of what the code loses, of several batches where they are tiny; of a shard there are codes alone."""
    classes, cache, largest = dumped
    together = max(BATCH, rows_at_once(classes) // BATCH * BATCH)
    assert together * classes * 8 <= max(BATCH * classes * 8, 1 << 19)
    assert largest == min(together, Layout(cache.manifest).block) * classes * 8
    assert cache.summary["fidelity"]["1"]["kl_mean"] < 3e-4


def test_a_student_decodes_a_batch_in_float32_and_no_more(dumped: tuple[int, Cache, int]) -> None:
    classes, cache, _ = dumped
    targets = CacheTargets(cache)
    logits = torch.zeros((BATCH, classes), requires_grad=True)
    tracemalloc.start()
    with Largest() as largest:
        for view_index in range(NUM_VIEWS):
            targets.begin(view_index, view_index)
            part = targets.probabilities(torch.arange(SAMPLES)[-BATCH:], torch.empty(0))
            soft_cross_entropy(logits, part).backward()  # type: ignore[no-untyped-call]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest.size == BATCH * classes * 4
    assert logits.grad is not None
    # Two views of codes, and in compact view index 0's once more. A shard is sorted by eight-byte numbers, so there may
    # be a few dozen times 2 MiB besides.
    assert peak < 6 * SAMPLES * classes + (80 << 20)
