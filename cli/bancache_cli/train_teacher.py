"""``bancache train-teacher``: generation 0, on labels."""

from __future__ import annotations

import os
from pathlib import Path

from bancache_cli import options


def train_teacher(
    *,
    data: options.DataOptions,
    model: options.ModelOptions,
    out: options.Out = None,
    views: options.Views = None,
    recipe: options.RecipeOptions,
    trainer: options.TrainerFlags,
    output: options.OutputOptions,
) -> None:
    """Train a model on labels: the first teacher.

    After a kill, the same command goes on and ends with the same weights.

    Example: `bancache train-teacher --data cifar100:data --model wrn-28-2 --out gen0.pt`
    """
    from bancache.system.device import choose_device
    from bancache.system.ranks import training_rank_from_env
    from bancache.training import run_for_labels
    from bancache.training.defaults import default_model, default_recipe, default_views
    from bancache_cli.training import architecture_for, train_and_report

    rank = training_rank_from_env(os.environ)
    reporter, device = output.reporter(rank.rank), choose_device(trainer.device, local=rank.local)
    spec = data.spec()
    images = spec.open("train", download=data.download, progress=reporter)
    test = spec.open("test", download=data.download, progress=reporter)
    size = (images.height, images.width)
    run = run_for_labels(
        architecture_for(model, images, default_model(spec.kind, *size)),
        default_recipe(spec.kind, recipe.recipe, **recipe.changes(device.type)),
        trainer.seed,
        spec,
        images,
        views or default_views(spec.kind, *size),
    )
    where = trainer.trainer(out or Path("gen0.pt"), device)
    train_and_report(run, images, test, where, cache=None, rank=rank, output=output)
