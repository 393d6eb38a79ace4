"""``bancache train-student``: the next generation, from a cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bancache_cli import console, options


def train_student(
    cache: Annotated[Path, typer.Option(help="What `bancache dump` wrote.")],
    model: options.Model = None,
    out: options.Out = None,
    loss: options.Loss = None,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    recipe: options.RecipeName = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    dropout: options.Dropout = None,
    checkpoint_activations: options.CheckpointActivations = False,
    share_ends: options.ShareEnds = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="The teacher's checkpoint, to share ends with; by default looked for beside the cache."
        ),
    ] = None,
    seed: options.Seed = 1,
    data: options.MaybeData = None,
    download: options.Download = False,
    amp: options.Amp = None,
    compile_net: options.Compile = False,
    device: options.Device = "auto",
    placement: options.Placement = "auto",
    graph: options.Graph = "auto",
    eval_every: options.EvalEvery = 1,
    save_every: options.SaveEvery = 60.0,
    tensorboard: options.TensorBoard = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a student from a cache; the teacher is needed no more, unless the student takes its ends.

    Same net and recipe as the teacher unless options say otherwise. The cache knows its data set and
    refuses another. Killed at any step, the same command goes on and ends with the same weights.

    Example: `bancache train-student --cache gen0.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.sources.spec import DataSpec
    from bancache.system.device import choose_device
    from bancache.system.ranks import training_rank_from_env
    from bancache.training import TrainerOptions, run_for_cache
    from bancache.training.build import teacher_file
    from bancache.training.defaults import default_share_layers, student_recipe
    from bancache_cli.training import architecture_for, changed, recipe_changes, train_and_tell

    among = training_rank_from_env(os.environ)
    reporter = console.Reporter(quiet=quiet or among.rank > 0)
    where = choose_device(device, local=among.local)
    opened = open_cache(cache)
    spec = DataSpec.from_dict(opened.manifest.dataset["spec"]).moved(data)
    images = spec.open("train", download=download, progress=reporter)
    test = spec.open("test", download=download, progress=reporter)
    taught = opened.manifest.teacher
    architecture = (
        architecture_for(model, images, dropout, checkpoint_activations)
        if model
        else changed(taught["architecture"], dropout, checkpoint_activations)
    )
    changes = recipe_changes(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        amp=amp,
        compile_net=compile_net,
        device_type=where.type,
    )
    changes |= {"loss": loss, "temperature": temperature, "alpha": alpha}
    run = run_for_cache(
        architecture,
        student_recipe(spec.kind, recipe, taught["recipe"], **changes),
        seed,
        spec,
        images,
        opened,
        share_layers=share_ends or default_share_layers(model, taught["architecture"]["name"]),
    )
    place = TrainerOptions(
        out or cache.with_name(f"gen{run.generation}.pt"),
        where,
        save_every,
        eval_every,
        overwrite,
        teacher or teacher_file(opened),
        placement=placement,
        graph=graph,
        tensorboard=tensorboard,
    )
    train_and_tell(
        run, images, test, place, cache=opened, seed=seed, among=among, as_json=as_json, reporter=reporter
    )
