"""``bancache train-student``: the next generation, from a cache."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from bancache_cli import options

_SEEDED = options.TrainerFlags(seed=1)


def train_student(
    *,
    cache: options.CacheOption,
    data: options.RecordedDataOptions,
    model: options.ModelOptions,
    out: options.Out = None,
    loss: options.LossOptions,
    recipe: options.RecipeOptions,
    share_layers: Annotated[
        Literal["copy", "freeze", "none"] | None,
        Option(
            help="Take the teacher's first and last layer, trainable (copy) or frozen. "
            "Default: freeze for a match-... model of this teacher, as in the paper, else none."
        ),
    ] = None,
    teacher: Annotated[
        Path | None, Option(help="The teacher's checkpoint, for --share-layers (default: next to the cache).")
    ] = None,
    trainer: options.TrainerFlags = _SEEDED,
    output: options.OutputOptions,
) -> None:
    """Train a student from a cache, without the teacher.

    Model and recipe are the teacher's unless options change them. The data must be those of the cache. After
    a kill, the same command goes on and ends with the same weights.

    Example: `bancache train-student --cache gen0.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.system.device import choose_device
    from bancache.system.ranks import training_rank_from_env
    from bancache.training import run_for_cache
    from bancache.training.build import teacher_file
    from bancache.training.defaults import default_share_layers, student_recipe
    from bancache_cli.training import architecture_for, train_and_report

    rank = training_rank_from_env(os.environ)
    reporter, device = output.reporter(rank.rank), choose_device(trainer.device, local=rank.local)
    opened = open_cache(cache)
    spec, taught = data.spec(opened.manifest.dataset["spec"]), opened.manifest.teacher
    images = spec.open("train", download=data.download, progress=reporter)
    test = spec.open("test", download=data.download, progress=reporter)
    run = run_for_cache(
        architecture_for(model, images, model.model) if model.model else model.change(taught["architecture"]),
        student_recipe(
            spec.kind, recipe.recipe, taught["recipe"], **recipe.changes(device.type), **asdict(loss)
        ),
        trainer.seed,
        spec,
        images,
        opened,
        share_layers=share_layers or default_share_layers(model.model, taught["architecture"]["name"]),
    )
    target = out or cache.with_name(f"gen{run.generation}.pt")
    where = trainer.trainer(target, device, teacher or teacher_file(opened))
    train_and_report(run, images, test, where, cache=opened, rank=rank, output=output)
