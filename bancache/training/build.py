"""The model and the optimizer of a run before its first step."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import MismatchError, UsageError
from bancache.models import build_model, share_layers
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import arguments_of, build_from
from bancache.philox import derive_seed
from bancache.system.fingerprint import short
from bancache.training.options import TrainerOptions
from bancache.training.recipe import Recipe
from bancache.training.run import Run


def make_model(run: Run, options: TrainerOptions) -> nn.Module:
    """Return the model of a run with its initial weights, on its device, in channels_last memory format.

    Raises:
        UsageError: No model has this name or these arguments, or the shared layers differ in shape.
        MismatchError: ``options.teacher`` is not the teacher of the run's cache.
    """
    torch.manual_seed(derive_seed(run.seed, "init"))
    model = build_model(**arguments_of(run.architecture))
    if run.share_layers != "none":
        share_layers(model, _teacher(run, options.teacher), run.share_layers)
    # torch's stubs lack the memory format of ``to``.
    placed: nn.Module = model.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over the trainable parameters. Frozen parameters get neither momentum nor weight decay."""
    return torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def teacher_file(cache: Cache) -> Path:
    """Return the checkpoint of a cache's teacher: the file beside the cache, else the path recorded at the dump."""
    recorded = Path(cache.manifest.teacher["path"])
    beside = cache.path.with_name(recorded.name)
    return recorded if recorded.exists() and not beside.exists() else beside


def _teacher(run: Run, path: str | os.PathLike[str] | None) -> nn.Module:
    """Build the teacher of the run's cache."""
    if path is None or not run.lineage:
        raise UsageError(
            "this run shares layers with a teacher, and has none", hint="name its checkpoint with --teacher"
        )
    path = Path(path)
    if not path.exists():
        raise UsageError(
            f"{path}, the teacher whose first and last layer the student takes, is missing",
            hint="name it with --teacher FILE, or train without it with --share-layers none",
        )
    checkpoint, expected = load_checkpoint(path), run.lineage[-1]["weights"]
    if checkpoint.fingerprint != expected:
        raise MismatchError.between(
            f"{path}: teacher",
            stored=f"'{short(expected)}' (the cache was)",
            given=f"'{short(checkpoint.fingerprint)}'",
            hint="name the checkpoint that the cache was dumped from with --teacher",
        )
    return build_from(checkpoint)
