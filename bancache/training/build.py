"""The net of a run as it is before its first step: built, given its teacher's ends if it takes them, placed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import MismatchError, UsageError
from bancache.models import build_model, share_ends
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import arguments_of, build_from
from bancache.philox import derive_seed
from bancache.system.fingerprint import short
from bancache.training.options import TrainerOptions
from bancache.training.recipe import Recipe
from bancache.training.run import Run


def build_net(run: Run, place: TrainerOptions) -> nn.Module:
    """Return the net of a run with its first weights, on its device, in channels_last memory.

    Raises:
        UsageError: The name or its arguments make no net, or its ends are not the teacher's in shape.
        MismatchError: ``place.teacher`` is not the net that answered.
    """
    torch.manual_seed(derive_seed(run.seed, "init"))
    net = build_model(**arguments_of(run.architecture))
    if run.share_ends != "none":
        share_ends(net, _teacher(run, place.teacher), run.share_ends)
    # torch's stubs do not know that ``to`` takes a memory format.
    placed: nn.Module = net.to(device=place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return the optimizer of what learns: a frozen parameter gets neither momentum nor weight decay."""
    return torch.optim.SGD(
        [parameter for parameter in net.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def teacher_file(cache: Cache) -> Path:
    """Return where the checkpoint of a cache's teacher lies: beside the cache, or else where it was at the dump."""
    named = Path(cache.manifest.teacher["path"])
    beside = cache.path.with_name(named.name)
    return named if named.exists() and not beside.exists() else beside


def _teacher(run: Run, path: Path | None) -> nn.Module:
    """Build the very net that made the run's cache."""
    if path is None or not run.lineage:
        raise UsageError(
            "ends are taken from a teacher, and this run has none", hint="name its checkpoint with --teacher"
        )
    if not path.exists():
        raise UsageError(
            f"{path}, the teacher whose first and last layer the student takes, is missing",
            hint="name it with --teacher FILE, or train without with --share-ends none",
        )
    checkpoint, asked = load_checkpoint(path), run.lineage[-1]["weights"]
    if checkpoint.fingerprint != asked:
        raise MismatchError.between(
            f"{path}: teacher",
            stored=f"'{short(asked)}' (the cache was)",
            given=f"'{short(checkpoint.fingerprint)}'",
            hint="name the checkpoint that the cache was dumped from with --teacher",
        )
    return build_from(checkpoint)
