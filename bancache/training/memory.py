"""What training a model takes of memory, measured on a few images before it is taken; and batch sizes that fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bancache.errors import UsageError
from bancache.evaluation.predict import images_at_once
from bancache.models import build_model
from bancache.models.names import LIBRARIES, parse_name
from bancache.models.teacher import arguments_of
from bancache.sources.image_set import ImageSet
from bancache.system.batch_memory import Needs, free_bytes, measure, total_bytes
from bancache.system.capturing import can_capture
from bancache.system.progress import Progress
from bancache.training.recipe import Recipe
from bancache.views.factory import resident_bytes
from bancache.views.space import ViewSpace

# Larger images are not tried: what a model takes grows with their area.
_TRIED, _TRIED_THIRD_PARTY = 64, 256
# A GPU evaluates a WRN-28-2 on 500 images faster than a host launches its 122 kernels, so it gets more at once, or
# fewer where they would take more than a part of its memory.
_TIMES, _PART = (4, 1, 1 / 4), 1 / 8


def training_needs(
    architecture: dict[str, Any],
    recipe: Recipe,
    data: ImageSet,
    test: ImageSet,
    views: ViewSpace,
    device: torch.device,
) -> Needs:
    """Return what training and evaluating a model takes on a device, with the images that stay in its memory.

    A captured step keeps its memory while the model is evaluated.
    """
    height, width = architecture["image_size"]
    images = resident_bytes(data.images, views, device, (height, width))
    images += resident_bytes(test.images, views.evaluation, device, (height, width))
    step, evaluation = _step_and_evaluation(architecture, recipe)
    tested = evaluation.of(min(len(test), evaluated_at_once(architecture, recipe, device)))
    if can_capture(device):
        return Needs(images + step.fixed + tested, step.image)
    return Needs(images + step.fixed, step.image, images + tested)


def evaluated_at_once(architecture: dict[str, Any], recipe: Recipe, device: torch.device) -> int:
    """Return how many test images go through a model at once beside its training; on a GPU by how large it is.

    Never by what is free at the moment: logits of batches of another size may have other last bits.
    """
    usual = images_at_once(*architecture["image_size"])
    if not can_capture(device):
        return usual
    _, evaluation = _step_and_evaluation(architecture, recipe)
    sizes = [max(1, int(times * usual)) for times in _TIMES]
    return next((size for size in sizes if evaluation.of(size) <= _PART * total_bytes(device)), sizes[-1])


def _step_and_evaluation(architecture: dict[str, Any], recipe: Recipe) -> tuple[Needs, Needs]:
    copies = (recipe.optimizer == "adamw") + (recipe.ema > 0)  # beside the weights and one momentum
    return _measured(json.dumps(architecture, sort_keys=True), recipe.amp, copies)


def dump_needs(
    architecture: dict[str, Any], recipe: Recipe, data: ImageSet, views: ViewSpace, device: torch.device
) -> Needs:
    """Return what a dump by a model that is not trained yet takes."""
    _, evaluation = _measured(json.dumps(architecture, sort_keys=True), recipe.amp)
    height, width = architecture["image_size"]
    images = resident_bytes(data.images, views, device, (height, width))
    return replace(evaluation, fixed=evaluation.fixed + images)


def choose_batch_size(
    recipe: Recipe,
    needs: Needs,
    device: torch.device,
    *,
    samples: int,
    even: bool,
    recorded: dict[str, Any] | None,
    scale_rate: bool,
    progress: Progress,
) -> Recipe:
    """Return a recipe whose batch size nobody gave, with one that suits the data and the memory; say what changed.

    Args:
        recipe: With the batch size of its preset or of the teacher.
        needs: What training takes.
        device: Where the run trains.
        samples: Number of training images.
        even: Whether the batch size may be smaller so that an epoch leaves few of them out.
        recorded: The recipe of the run that is under way or finished, which is kept if its batch size was chosen here.
        scale_rate: Whether the learning rate follows a batch that memory makes smaller, in proportion, as in Goyal et al.,
            "Accurate, Large Minibatch SGD", 2017.
        progress: Gets a note.
    """
    if recorded and recorded["batch_size"] <= recipe.batch_size and has_rate_of(recorded, recipe):
        lr = recorded["lr"] if scale_rate else recipe.lr
        return replace(recipe, batch_size=recorded["batch_size"], lr=lr)
    fits = needs.fit(recipe.batch_size, samples, free_bytes(device), progress)
    lr = recipe.lr * fits / recipe.batch_size if scale_rate else recipe.lr
    if lr != recipe.lr:
        progress.note(
            f"learning rate {lr:g} instead of {recipe.lr:g}, in proportion to the batch size (--lr)"
        )
    fitting = even_batch_size(samples, fits) if even else fits
    if fitting != fits:
        progress.note(
            f"batch size {fitting}: {fits} would leave out {samples % fits:,} of {samples:,} images in every epoch "
            "(--batch-size)"
        )
    return replace(recipe, batch_size=fitting, lr=lr)


def has_rate_of(recorded: dict[str, Any], recipe: Recipe) -> bool:
    """Return whether a recorded recipe has the learning rate of ``recipe``, perhaps in proportion to its own batch."""
    scaled = recipe.lr * recorded["batch_size"] / recipe.batch_size
    return any(math.isclose(recorded["lr"], lr) for lr in (recipe.lr, scaled))


def even_batch_size(samples: int, batch_size: int) -> int:
    """Return a batch size that leaves out at most one sample in a hundred: the given one, or a smaller one.

    >>> even_batch_size(50_000, 128), even_batch_size(160, 128), even_batch_size(2_000, 128)
    (128, 80, 125)
    """
    if samples < batch_size or samples % batch_size <= samples // 100:
        return batch_size
    return samples // -(-samples // batch_size)


@cache
def _measured(architecture: str, amp: bool, copies: int = 0) -> tuple[Needs, Needs]:
    """Return what a step and what a forward pass take; on the CPU, whose kernels keep the same tensors as a GPU's."""
    arguments = arguments_of(json.loads(architecture))
    with torch.random.fork_rng(devices=[]):
        model, size = _build(arguments)
        height, width = arguments["image_size"]
        area = height * width / (size[0] * size[1])

        def forward(count: int) -> torch.Tensor:
            images = torch.zeros(count, arguments["channels"], *size).contiguous(
                memory_format=torch.channels_last
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=amp, cache_enabled=False):
                logits: torch.Tensor = model(images)
            return logits.to(torch.float32)

        step = measure(lambda count: _backward(model, forward, count))
        model.eval()
        with torch.no_grad():
            evaluation = measure(forward)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return (
        Needs((2 + copies) * weights + step.fixed, int(step.image * area)),  # the weights and their momentum
        Needs((2 + copies) * weights + evaluation.fixed, int(evaluation.image * area)),
    )


def _backward(model: nn.Module, forward: Callable[[int], torch.Tensor], count: int) -> None:
    loss = F.cross_entropy(forward(count), torch.zeros(count, dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)


def _build(arguments: dict[str, Any]) -> tuple[nn.Module, tuple[int, int]]:
    """Return the model in training mode and the size of the images to try it on."""
    most = _TRIED_THIRD_PARTY if parse_name(arguments["name"]).family in LIBRARIES else _TRIED
    for size in (tuple(min(side, most) for side in arguments["image_size"]), arguments["image_size"]):
        try:
            model = build_model(**{**arguments, "image_size": size})
        except UsageError:  # some models of torchvision and timm take images of one size only
            if size == arguments["image_size"]:
                raise
            continue
        placed: nn.Module = model.to(memory_format=torch.channels_last)
        return placed.train(), size
    raise AssertionError(arguments)
