"""Whether a run on a GPU compiles its model: where the measured gain is larger than what compiling takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bancache.models import build_model
from bancache.models.teacher import arguments_of
from bancache.system.capturing import can_capture, capture, seconds
from bancache.system.progress import Progress
from bancache.training.recipe import Recipe

# Compiling takes tens of seconds and made steps 1.15 to 1.33 times as fast (docs/log.md), so a shorter run is not tried.
_SECONDS, _GAIN = 60.0, 0.25

Forward = Callable[[torch.Tensor], torch.Tensor]


def choose_compile(
    recipe: Recipe,
    architecture: dict[str, Any],
    batches: int,
    runs: int,
    device: torch.device,
    *,
    recorded: dict[str, Any] | None,
    progress: Progress,
) -> Recipe:
    """Return a recipe that says whether to compile, if nobody did; measure it where it can pay, and say what was found.

    Args:
        recipe: Of the run.
        architecture: Arguments of ``build_model``.
        batches: Steps of an epoch.
        runs: How many models will be trained with it.
        device: Where they are taken. On a CPU nothing is compiled, nor where torch is to repeat its bits.
        recorded: The recipe of the run that is under way or finished, which is kept.
        progress: Gets a note.
    """
    if recorded is not None:
        return replace(recipe, compile=recorded.get("compile", False))
    recipe = replace(recipe, compile=False)
    # Two measurements of the same run may differ, and with them the bits of two runs.
    if not can_capture(device) or torch.are_deterministic_algorithms_enabled():
        return recipe
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _measured(recipe, architecture, (batches, runs), device, progress)


def _measured(
    recipe: Recipe,
    architecture: dict[str, Any],
    amount: tuple[int, int],
    device: torch.device,
    progress: Progress,
) -> Recipe:
    batches, runs = amount
    steps = batches * recipe.epochs * runs
    model = build_model(**arguments_of(architecture))
    # torch's stubs lack the memory format of ``to``.
    model = model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    try:
        plain = seconds_a_step(model, model, recipe, architecture, device)
        if plain * steps * _GAIN < _SECONDS:
            return recipe
        progress.log("compiling the model")
        before = monotonic()
        compiled = seconds_a_step(torch.compile(model, dynamic=False), model, recipe, architecture, device)
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and the run needs none
        why = next(iter(str(error).splitlines()), "no reason given")
        progress.note(f"not compiled: {type(error).__name__} ({why})")
        return recipe
    spent, saved = monotonic() - before, plain - compiled
    found = f"in {spent:.0f} s a step takes {compiled * 1e3:.2f} ms instead of {plain * 1e3:.2f}"
    if saved * steps <= spent:
        progress.note(f"not compiled: {found} (--compile)")
        return recipe
    progress.note(f"compiled: {found}, which pays after {spent / saved / batches:.1f} epochs (--no-compile)")
    return replace(recipe, compile=True)


def seconds_a_step(
    forward: Forward, model: nn.Module, recipe: Recipe, architecture: dict[str, Any], device: torch.device
) -> float:
    """Return how long forward and backward pass of one batch of noise take, captured, in seconds: a median."""
    height, width = architecture["image_size"]
    dtype = torch.bfloat16 if recipe.amp else torch.float32
    shape = (recipe.batch_size, architecture["channels"], height, width)
    images = torch.randn(shape, device=device).to(dtype=dtype, memory_format=torch.channels_last)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)

    def work() -> None:
        # As in training/step.py: a captured step cannot use a cache of cast weights.
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp, cache_enabled=False):
            logits = forward(images)
        model.zero_grad(set_to_none=True)
        F.cross_entropy(logits.to(torch.float32), labels).backward()  # type: ignore[no-untyped-call]

    return seconds(capture(work, device), device)
