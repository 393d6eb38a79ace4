"""The batch size of a sequence's dumps, chosen before its teachers are trained: their speed does not depend on weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bancache.dumping.batch_size import choose_batch_size
from bancache.dumping.settings import DumpSettings
from bancache.models import build_model
from bancache.models.teacher import Teacher, arguments_of
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress
from bancache.training.memory import dump_needs
from bancache.training.recipe import Recipe
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace

_USUAL = 256


def dump_batch_size(
    architecture: dict[str, Any],
    recipe: Recipe,
    data: ImageSet,
    space: ViewSpace,
    num_views: int,
    device: torch.device,
    progress: Progress,
    *,
    dumps: int,
) -> int:
    """Return how many images go through a teacher at once; ``dumps`` caches of ``num_views`` views are made."""
    height, width = architecture["image_size"]
    settings = DumpSettings(
        space, num_views, "root4", _USUAL, Normalization((0.0,), (1.0,)), size=(height, width)
    )
    precision = "bfloat16" if recipe.amp else "float32"
    with torch.random.fork_rng(devices=[]):
        model = build_model(**arguments_of(architecture)).eval().requires_grad_(False)
    placed: nn.Module = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return choose_batch_size(
        Teacher(placed, "", architecture, precision=precision),
        data,
        settings,
        dump_needs(architecture, recipe, data, space, device),
        device,
        progress,
        dumps=dumps,
    )
