"""The data, the cache and the step that the GPU benchmarks share: noise of CIFAR's size, answers of a random net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.models import build_model
from bancache.models.checkpoint import fingerprint_state
from bancache.models.teacher import Teacher, arguments_of
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Recipe, TrainerOptions, run_for_cache
from bancache.training.build import make_loader, make_model, make_optimizer
from bancache.training.cuda_graph import StaticStep, device_rate
from bancache.training.options import Placement
from bancache.training.state import TrainState
from bancache.training.step import Step
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization
from benchmarks.gpu.timing import Options

CLASSES = 100
NORMAL = Normalization((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
SPEC = DataSpec("npz:noise.npz")


def noise(count: int) -> ImageSet:
    """Return random images of CIFAR's size with random labels: what they show costs a GPU nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {index}" for index in range(CLASSES))
    return ImageSet(images, rng.integers(0, CLASSES, count), names, "noise", "train")


def architecture(name: str) -> dict[str, Any]:
    """Return a net for that data."""
    return {"name": name, "classes": CLASSES, "channels": 3, "image_size": [32, 32], "dropout": 0.0}


def teacher(name: str, given: Options) -> Teacher:
    """Return a net that has learned nothing and answers in bfloat16."""
    torch.manual_seed(0)
    net = build_model(**arguments_of(architecture(name))).eval().requires_grad_(False)
    fingerprint = fingerprint_state(net.state_dict())
    placed: nn.Module = net.to(device=given.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(placed, fingerprint, architecture(name), path=name, precision="bfloat16")


def settings(num_views: int, batch_size: int) -> DumpSettings:
    """Dump root4 codes of padded crops and flips."""
    return DumpSettings(
        space=ViewSpace.parse("crop4-flip"),
        num_views=num_views,
        encoding="root4",
        batch_size=batch_size,
        normalization=NORMAL,
    )


def small_cache(data: ImageSet, folder: Path, num_views: int, given: Options) -> Cache:
    """Return a cache of answers that are cheap to get."""
    asked = teacher("convnet-16", given)
    return dump(asked, data, SPEC, folder / "gen0.zarr", settings(num_views, 1000), device=given.device).cache


@dataclass(frozen=True)
class Student:
    """A net in training.

    Attributes:
        step: Takes one step with a batch it is given.
        static: Takes one step with the batch it finds.
        steps: Steps an epoch.
        rates: Their learning rates: so small that noise does not carry the weights away.
    """

    step: Step
    static: StaticStep
    steps: int
    rates: list[float]


def student(
    name: str, batch_size: int, cache: Cache, data: ImageSet, placement: Placement, given: Options
) -> Student:
    """Set a net up as ``bancache train-student`` does, under autocast on a GPU."""
    recipe = Recipe(1, batch_size, lr=1e-4, schedule="step", weight_decay=5e-4, amp=given.cuda)
    run = run_for_cache(architecture(name), recipe, 1, SPEC, data, cache)
    place = TrainerOptions(cache.path.with_name("student.pt"), given.device, placement=placement)
    model = make_model(run, place).train()
    state = TrainState(model, make_optimizer(model, recipe))
    loader = make_loader(run, data, place, cache=cache)
    step = Step(run, model, state)
    rate = device_rate(state.optimizer, given.device)
    return Student(step, StaticStep(loader, step, rate), loader.steps, [recipe.lr] * loader.steps)
