"""``bancache train-teacher`` and ``bancache train-student``: one model, on labels or from a cache."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Exit, Option

from bancache.system.address import Address
from bancache.system.device import check_device_name
from bancache.system.wording import count
from bancache.training.recipe import given
from bancache_cli import console, early, finetune, options
from bancache_cli.inputs import input_size, like_teacher
from bancache_cli.losses import LossOptions
from bancache_cli.recipes import RecipeOptions, suit

if TYPE_CHECKING:
    from bancache.cache.reader import Cache
    from bancache.models.checkpoint import Checkpoint
    from bancache.models.match_frame import ShareMode
    from bancache.report.results import Record
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress
    from bancache.system.ranks import Rank
    from bancache.training import Run, TrainerOptions

_SEEDED = options.TrainerFlags(seed=1)


def train_teacher(
    *,
    data: options.DataOptions,
    model: options.ModelOptions,
    out: options.Out = None,
    views: options.Views = None,
    weights: finetune.Weights = None,
    recipe: RecipeOptions,
    trainer: options.TrainerFlags,
    output: options.OutputOptions,
) -> None:
    """Train a model on labels: the first teacher.

    After a kill, the same command goes on and ends with the same weights. With `--weights`, a head for another number of
    classes is replaced, and the learning rate is a tenth of the usual one.

    Example: `bancache train-teacher --data cifar100:data --model wrn-28-2 --out gen0.pt`
    """
    from bancache.system.ranks import training_rank_from_env
    from bancache.training.defaults import default_model, default_recipe, default_views

    rank, spec, target = training_rank_from_env(os.environ), data.spec(), out or Path("gen0.pt")
    reporter = output.reporter(rank.rank)
    chosen = default_recipe(spec.kind, recipe.recipe, **recipe.changes())
    model, chosen = finetune.check(weights, model, chosen, recipe, reporter)
    asked = {**early.asked_for(model, recipe, chosen, views), **finetune.asked_for(weights)}
    recorded = _recorded(target, trainer, rank, {**asked, "seed": trainer.seed, "generation": 0})
    spec = spec.as_begun(recorded.get("data", {}))
    images, test = spec.open_both(download=data.download, progress=reporter)
    begun = recorded.get("architecture")
    size = input_size(model, images, reporter, recorded=begun, tuned=weights is not None)

    from bancache.training import run_for_labels

    device = trainer.choose_device(rank.local)
    architecture = architecture_for(model, images, size, default_model(spec.kind, *size), begun, reporter)
    views = (
        views or early.recorded_views(recorded) or default_views(spec.kind, *size, ragged=not images.uniform)
    )
    even = recipe.recipe is None and spec.kind != "digits"
    built = architecture, views, (images, test), device, recorded.get("recipe"), reporter
    chosen = suit(recipe, chosen, *built, even=even, alone=rank.count == 1, tuned=weights is not None)
    start = finetune.load(weights, architecture, reporter)
    run = run_for_labels(architecture, chosen, trainer.seed, spec, images, views, start=start)
    _train(run, images, test, trainer.trainer(target, device), cache=None, rank=rank, output=output)


def train_student(
    *,
    cache: options.CacheOption,
    keep_local: options.KeepLocal = 0,
    data: options.RecordedDataOptions,
    model: options.ModelOptions,
    out: options.Out = None,
    weights: finetune.Weights = None,
    loss: LossOptions,
    recipe: RecipeOptions,
    share_layers: Annotated[
        Literal["copy", "freeze", "none"] | None,
        Option(
            help="Take the teacher's first and last layer, trainable (copy) or frozen, and its normalization of images. "
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

    Model and recipe are the teacher's unless options change them; `--weights` is that of `train-teacher`.
    After a kill, the same command goes on and ends with the same weights.

    Example: `bancache train-student --cache gen0.zarr`
    """
    early.require_teacher(teacher)
    from bancache.cache.reader import open_cache
    from bancache.system.ranks import training_rank_from_env
    from bancache.training.defaults import student_recipe

    rank, opened = training_rank_from_env(os.environ), open_cache(cache, keep_local=keep_local)
    spec, taught = data.spec(opened.manifest.dataset["spec"]), opened.manifest.teacher
    chosen = student_recipe(spec.kind, recipe.recipe, taught["recipe"], **recipe.changes(), **asdict(loss))
    reporter, target = output.reporter(rank.rank), out or _beside(cache, taught)
    model, chosen = finetune.check(weights, model, chosen, recipe, reporter, taught)
    asked = early.asked_for(model, recipe, chosen, None, **asdict(loss)) | finetune.asked_for(weights)
    asked |= given({"seed": trainer.seed, "cache": opened.digest, "share_ends": share_layers})
    recorded, own = _recorded(target, trainer, rank, asked), early.own_loss(chosen.loss, loss.loss)
    from bancache.loader.cache_targets import require_served
    from bancache.training import run_for_cache
    from bancache.training.build import teacher_file

    require_served(opened, chosen.temperature)
    splits = spec.open_both(download=data.download, progress=reporter)
    device = trainer.choose_device(rank.local)
    architecture = _students(model, opened, splits[0], recorded.get("architecture"), reporter)
    what, start = (architecture, chosen, trainer.seed), finetune.load(weights, architecture, reporter)
    share = share_layers or _usual_share(model.model, taught)
    run = run_for_cache(*what, spec, splits[0], opened, share_layers=share, own_loss=own, start=start)
    built = run.architecture, run.space.name, splits, device, recorded.get("recipe"), reporter
    even = recipe.recipe is None and taught["recipe"] is None
    chosen = suit(recipe, chosen, *built, even=even, alone=rank.count == 1, tuned=weights is not None)
    where = trainer.trainer(target, device, teacher or teacher_file(opened))
    _train(replace(run, recipe=chosen), *splits, where, cache=opened, rank=rank, output=output)


def _beside(cache: Path, taught: dict[str, Any]) -> Path:
    """Return the file for a student: beside its cache, or in the current folder if the cache is in an object store."""
    return (Path() if isinstance(cache, Address) else cache.parent) / f"gen{taught['generation'] + 1}.pt"


def _students(
    model: options.ModelOptions,
    cache: Cache,
    images: ImageSet,
    recorded: dict[str, Any] | None,
    reporter: Progress,
) -> dict[str, Any]:
    """Return a student's architecture: its teacher's at the size of the cache, or that of the model that was asked for."""
    if model.model is None:
        own, seen = cache.manifest.teacher["architecture"], cache.manifest.teacher_size
        return model.change(like_teacher(own, seen, recorded))
    size = input_size(model, images, reporter, cache.manifest.teacher_size)
    return architecture_for(model, images, size, model.model, None, reporter)


def _usual_share(model: str | None, taught: dict[str, Any]) -> ShareMode:
    """Return what a student takes of its teacher's layers by default; there is none to take them from in an ensemble."""
    from bancache.training.defaults import default_share_layers

    return "none" if "members" in taught else default_share_layers(model, taught["architecture"]["name"])


def _recorded(out: Path, trainer: options.TrainerFlags, rank: Rank, asked: dict[str, Any]) -> dict[str, Any]:
    """Check an output, and return the settings of the run there that is to go on; empty if there is none."""
    check_device_name(trainer.device)
    early.require_file(out, alone=rank.count == 1)
    return {} if trainer.overwrite else early.recorded_settings(out, asked)


def architecture_for(
    model: options.ModelOptions,
    data: ImageSet,
    size: tuple[int, int],
    default: str,
    recorded: dict[str, Any] | None,
    reporter: Progress,
) -> dict[str, Any]:
    """Return a model's name and arguments: those that the data decides, and those from the command line."""
    from bancache.training.defaults import OLD_MODEL

    name = model.model or default
    if model.model is None:
        if recorded and recorded.get("name") == OLD_MODEL:
            name = OLD_MODEL  # a run that an older version began
        if name != OLD_MODEL and min(size) > 64:
            reporter.note(f"model {name}, for images of {size[0]} x {size[1]} pixels (--model)")
    return model.change(
        {
            "name": name,
            "classes": len(data.classes),
            "channels": data.channels,
            "image_size": list(size),
            "dropout": 0.0,
        }
    )


def _train(
    run: Run,
    data: ImageSet,
    test: ImageSet,
    trainer: TrainerOptions,
    *,
    cache: Cache | None,
    rank: Rank,
    output: options.OutputOptions,
) -> None:
    """Train, write the line in results.jsonl and print the result; of several ranks, only rank 0 writes."""
    from bancache.errors import StoppedError
    from bancache.system.signals import interruptible
    from bancache.training import train
    from bancache.training.distributed import join_process_group
    from bancache.training.record import run_record

    reporter, run = output.reporter(rank.rank), replace(run, ranks=rank.count)
    try:
        # Every process says for whom it waits.
        with (
            join_process_group(rank, trainer.device, output.reporter()) as group,
            interruptible() as interrupt,
        ):
            trained = train(
                run, data, test, trainer, cache=cache, progress=reporter, interrupt=interrupt, group=group
            )
    except StoppedError as stopped:
        if rank.rank == 0:
            raise
        raise Exit(stopped.exit_code) from stopped  # rank 0 prints the line for all
    if rank.rank:
        return
    record = run_record(trained.checkpoint, trainer.checkpoint_path, seed=run.seed)
    console.record(trainer.checkpoint_path, record, trainer.device, "weights")
    result = _result(record, trained.checkpoint, fresh=trained.fresh)
    output.show(result, _line(result))


def _result(record: Record, checkpoint: Checkpoint, *, fresh: bool) -> dict[str, Any]:
    header = checkpoint.header
    return {
        "out": record["out"],
        **{key: record[key] for key in ("model", "generation", "loss", "epochs", "trainable")},
        **{key: header[key] for key in ("parameters", "seconds", "images_per_second")},
        "share_layers": record["share_ends"],
        "test_accuracy": header["test"]["accuracy"],
        "weights": checkpoint.fingerprint,
        "trained": fresh,
    }


def _line(result: dict[str, Any]) -> str:
    state = "" if result["trained"] else " (was complete already)"
    return (
        f"{result['out']}: {result['model']}, generation {result['generation']}, "
        f"test accuracy {result['test_accuracy']:.2%} after {count(result['epochs'], 'epoch')}, "
        f"{result['seconds']:,.1f} s, {result['images_per_second']:,.0f} images/s{state}"
    )
