"""The data, the teachers and the students that the GPU benchmarks share: noise, and nets that have learned nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.loader import Batch, Loader
from bancache.loader.placement import Placement
from bancache.loader.targets import CodedTargets
from bancache.models import build_model
from bancache.models.checkpoint import fingerprint_state
from bancache.models.teacher import Teacher, arguments_of
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Recipe, TrainerOptions, run_for_cache
from bancache.training.build import make_loader, make_model, make_optimizer
from bancache.training.cuda_graph import StaticStep, device_rate
from bancache.training.state import TrainState
from bancache.training.step import Step
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization
from benchmarks.gpu.timing import recorded

CLASSES = 100
NORMAL = Normalization((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
SPEC = DataSpec("npz:noise.npz")


@lru_cache(maxsize=4)
def noise(count: int, classes: int = CLASSES, size: int = 32) -> ImageSet:
    """Return random images in color with random labels: what they show costs a GPU nothing."""
    rng = np.random.default_rng(0)
    images = np.frombuffer(rng.bytes(count * size * size * 3), np.uint8).reshape(count, size, size, 3)
    names = tuple(f"class {index}" for index in range(classes))
    return ImageSet(images, rng.integers(0, classes, count), names, "noise", "train")


def architecture(name: str, classes: int = CLASSES, size: int = 32) -> dict[str, Any]:
    """Return a net for that data."""
    return {"name": name, "classes": classes, "channels": 3, "image_size": [size, size], "dropout": 0.0}


def net(name: str, device: torch.device, classes: int = CLASSES, size: int = 32) -> nn.Module:
    """Return a net for that data, in channels_last memory."""
    torch.manual_seed(0)
    arguments = arguments_of(architecture(name, classes, size))
    if ":" in name:
        del arguments["dropout"]
    built = build_model(**arguments)
    placed: nn.Module = built.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def teacher(name: str, device: torch.device, classes: int = CLASSES, size: int = 32) -> Teacher:
    """Return a net that answers in bfloat16; bancache's own are taken for checkpoints, which need no second look."""
    model = net(name, device, classes, size).eval().requires_grad_(False)
    about = architecture(name, classes, size)
    header = {} if ":" in name else {"generation": 0}
    return Teacher(model, fingerprint_state(model.state_dict()), about, header, name, "bfloat16")


def settings(
    num_views: int, batch_size: int, views: str = "crop4-flip", size: int | None = None
) -> DumpSettings:
    """Dump root4 codes."""
    return DumpSettings(
        space=ViewSpace.parse(views),
        num_views=num_views,
        encoding="root4",
        batch_size=batch_size,
        normalization=NORMAL,
        size=None if size is None else (size, size),
    )


def small_cache(data: ImageSet, folder: Path, num_views: int, device: torch.device) -> Cache:
    """Return a cache of answers that are cheap to get."""
    asked = settings(num_views, min(5000, len(data)))
    return dump(teacher("convnet-16", device), data, SPEC, folder / "gen0.zarr", asked, device=device).cache


@dataclass(frozen=True)
class Student:
    """A net in training, as ``bancache train-student`` sets it up.

    Attributes:
        static: Takes one step with the batch it finds.
        steps: Steps an epoch.
        still: Takes one step with a batch that is in place, images, labels and float32 probabilities.
    """

    static: StaticStep
    steps: int
    still: Callable[[], None]

    def epochs(self, count: int, step: Callable[[], Any], begun: list[int]) -> None:
        """Run epochs that each begin as in a training; ``begun`` counts them."""
        rates = [1e-4] * self.steps  # so small that noise does not carry the weights away
        for _ in range(count):
            self.static.fill(begun[0], rates, start=0)
            begun[0] += 1
            for _ in range(self.steps):
                step()

    def captured(self, device: torch.device) -> Callable[[], Any]:
        """Return a step from the cache, as a graph on a GPU."""
        self.static.fill(0, [1e-4] * self.steps, start=0)
        targets = self.static._loader.targets
        assert isinstance(targets, CodedTargets)
        targets.hold()
        graph = recorded(self.static, device)
        self.static.forget()
        return graph


def student(
    name: str,
    batch_size: int,
    cache: Cache,
    data: ImageSet,
    placement: Placement,
    device: torch.device,
    compiler: Callable[[nn.Module], Any] | None = None,
) -> Student:
    """Set a net up, under autocast on a GPU."""
    loader, step = loader_and_step(name, batch_size, cache, data, placement, device, compiler)
    static = StaticStep(loader, step, device_rate(step.state.optimizer, device))
    batch = _static_batch(static)
    return Student(static, loader.steps, lambda: step(batch))


def loader_and_step(
    name: str,
    batch_size: int,
    cache: Cache,
    data: ImageSet,
    placement: Placement,
    device: torch.device,
    compiler: Callable[[nn.Module], Any] | None = None,
    seed: int = 1,
) -> tuple[Loader, Step]:
    """Return what feeds a net from a cache, and what takes its steps, under autocast on a GPU."""
    amp = device.type == "cuda"
    recipe = Recipe(1, batch_size, lr=1e-4, schedule="step", weight_decay=5e-4, amp=amp)
    run = run_for_cache(architecture(name), recipe, seed, SPEC, data, cache)
    place = TrainerOptions(cache.path.with_name("student.pt"), device, placement=placement)
    model = make_model(run, place).train()
    state = TrainState(model, make_optimizer(model, recipe))
    step = Step(run, model if compiler is None else compiler(model), state)
    return make_loader(run, data, place, cache=cache), step


def _static_batch(static: StaticStep) -> Batch:
    """Return an epoch's first batch with float32 probabilities, all in memory that stays."""
    loader = static._loader
    addresses, some = loader.with_rows(loader.begin(0)), slice(0, loader.batch_size)
    assert addresses.rows is not None
    parts = (torch.from_numpy(part[some].copy()) for part in (addresses.samples, addresses.rows))
    samples, views = (part.to(loader.device) for part in parts)
    batch = loader.batch(samples, views)
    assert loader.targets is not None
    targets = loader.targets.probabilities(samples, batch.images)
    return replace(batch, targets=torch.as_tensor(targets), codes=None)
