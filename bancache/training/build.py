"""The model, the optimizer and the loader of a run before its first step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import MismatchError, UsageError
from bancache.loader import Loader, LoaderOptions, Targets
from bancache.loader.open import cached_loader, labels_loader, teacher_normalization
from bancache.models import build_model, share_layers
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import OnlineTargets, arguments_of, build_from
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.system.address import Address
from bancache.system.fingerprint import short
from bancache.system.progress import Progress
from bancache.system.ranks import ALONE, Rank
from bancache.training.options import TrainerOptions
from bancache.training.recipe import Recipe
from bancache.training.run import Run
from bancache.training.step import decodes_itself


def make_model(run: Run, options: TrainerOptions) -> nn.Module:
    """Return the model of a run with its initial weights, on its device, in channels_last memory format."""
    torch.manual_seed(derive_seed(run.seed, "init"))
    model = build_model(**arguments_of(run.architecture))
    if run.start is not None:
        run.start.put_into(model)
    if run.share_layers != "none":
        share_layers(model, _teacher(run, options.teacher), run.share_layers)
    # torch's stubs lack the memory format of ``to``.
    placed: nn.Module = model.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD or AdamW over the trainable parameters. Frozen parameters get neither momentum nor weight decay."""
    groups = _groups(model, recipe)
    if recipe.optimizer == "adamw":
        # Fused on a CPU, too: its bits do not depend on whether the learning rate is a number or a tensor.
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trainable parameters, those without weight decay apart, as timm's ``param_groups_weight_decay`` does."""
    trainable = {name: each for name, each in model.named_parameters() if each.requires_grad}
    own: set[str] = getattr(model, "no_weight_decay", set)() if recipe.weight_decay_exclude_1d else set()
    without = [
        name
        for name, each in trainable.items()
        if recipe.weight_decay_exclude_1d and (each.ndim <= 1 or name.endswith(".bias") or name in own)
    ]
    rest = [each for name, each in trainable.items() if name not in without]
    groups: list[dict[str, Any]] = [
        {"params": rest},
        {"params": [trainable[name] for name in without], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_loader(
    run: Run,
    data: ImageSet,
    options: TrainerOptions,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    rank: Rank = ALONE,
) -> Loader:
    """Open the training images of a run, and the targets of ``cache`` or ``targets``, for one process."""
    recipe, device = run.recipe, options.device
    # Autocast would round the images anyway. A teacher that runs online has its own precision.
    rounded = recipe.amp and device.type == "cuda" and targets is None
    chosen = LoaderOptions(
        batch_size=recipe.batch_size,
        seed=derive_seed(run.seed, "order"),
        temperature=recipe.temperature,
        targets=recipe.targets,
        targets_seed=derive_seed(run.seed, "targets"),
        device=device,
        placement=options.placement,
        dtype=torch.bfloat16 if rounded else torch.float32,
        shuffle_block=recipe.shuffle_block,
        decode=cache is None or not decodes_itself(run, device, len(data.classes)),
        rank=rank,
        keep_last=recipe.keep_last,
    )
    if cache is not None:
        if isinstance(targets, OnlineTargets):
            _require_one_input(run, cache)
        return cached_loader(
            cache,
            data,
            chosen,
            targets=targets,
            normalization=run.normalization,
            size=run.size,
            progress=progress,
        )
    return labels_loader(
        data,
        run.space,
        run.normalization,
        run.num_views,
        chosen,
        size=run.size,
        targets=targets,
        progress=progress,
    )


def _require_one_input(run: Run, cache: Cache) -> None:
    """Refuse a teacher that runs online beside a student with another input: both get the same batch."""
    if run.normalization != teacher_normalization(cache):
        raise UsageError(
            "the teacher's images are normalized otherwise than the student's, so it cannot run online"
        )
    own = cache.manifest.teacher_size or tuple(cache.manifest.dataset["image_shape"][:2])
    if own != run.size:
        raise UsageError(
            f"the teacher's images have {own[0]} x {own[1]} pixels and the student's {run.size[0]} x {run.size[1]}, "
            "so it cannot run online"
        )


def teacher_file(cache: Cache) -> Path:
    """Return the checkpoint of a cache's teacher: the file beside the cache, else the path recorded at the dump.

    Beside a cache in an object store none is looked for.
    """
    recorded = Path(cache.manifest.teacher.get("path", ""))
    if isinstance(cache.path, Address):
        return recorded
    beside = cache.path.parent / recorded.name
    return recorded if recorded.exists() and not beside.exists() else beside


def require_teacher(path: Path, fingerprint: str, expected: str) -> None:
    """Check that a checkpoint has the weights that a cache was dumped from."""
    if fingerprint != expected:
        raise MismatchError.between(
            f"{path}: teacher",
            stored=f"'{short(expected)}' (the cache was)",
            given=f"'{short(fingerprint)}'",
            hint="name the checkpoint that the cache was dumped from with --teacher",
        )


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
    require_teacher(path, checkpoint.fingerprint, expected)
    return build_from(checkpoint, path)
