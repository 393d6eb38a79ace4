"""``bancache train-teacher``: generation 0, on labels."""

from __future__ import annotations

import os
from pathlib import Path

from bancache_cli import console, options


def train_teacher(
    data: options.Data = "digits",
    model: options.Model = None,
    out: options.Out = None,
    views: options.Views = None,
    recipe: options.RecipeName = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    dropout: options.Dropout = None,
    checkpoint_activations: options.CheckpointActivations = False,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    image_size: options.ImageSize = None,
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
    """Train a net on labels: the first teacher.

    Killed at any step, the same command goes on and ends with the same weights.

    Example: `bancache train-teacher --data cifar100:data --model wrn-28-2 --out gen0.pt`
    """
    from bancache.sources.spec import DataSpec
    from bancache.system.device import choose_device
    from bancache.system.ranks import training_rank_from_env
    from bancache.training import TrainerOptions, run_for_labels
    from bancache.training.defaults import default_model, default_recipe, default_views
    from bancache_cli.training import architecture_for, recipe_changes, train_and_tell

    among = training_rank_from_env(os.environ)
    reporter = console.Reporter(quiet=quiet or among.rank > 0)
    where = choose_device(device, local=among.local)
    spec = DataSpec(data, limit, image_size)
    images = spec.open("train", download=download, progress=reporter)
    test = spec.open("test", download=download, progress=reporter)
    size = (images.height, images.width)
    changes = recipe_changes(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        amp=amp,
        compile_net=compile_net,
        device_type=where.type,
    )
    run = run_for_labels(
        architecture_for(model or default_model(spec.kind, *size), images, dropout, checkpoint_activations),
        default_recipe(spec.kind, recipe, **changes),
        seed,
        spec,
        images,
        views or default_views(spec.kind, *size),
    )
    place = TrainerOptions(
        out or Path("gen0.pt"),
        where,
        save_every,
        eval_every,
        overwrite,
        placement=placement,
        graph=graph,
        tensorboard=tensorboard,
    )
    train_and_tell(
        run, images, test, place, cache=None, seed=seed, among=among, as_json=as_json, reporter=reporter
    )
