"""The part that both training commands share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from bancache_cli import console, options

if TYPE_CHECKING:
    from bancache.cache.reader import Cache
    from bancache.models.checkpoint import Checkpoint
    from bancache.report.results import Record
    from bancache.sources.image_set import ImageSet
    from bancache.system.ranks import Rank
    from bancache.training import Run, TrainerOptions


def architecture_for(model: options.ModelOptions, data: ImageSet, default: str) -> dict[str, Any]:
    """Return a model's name and arguments: those that the data decides, and those from the command line."""
    return model.change(
        {
            "name": model.model or default,
            "classes": len(data.classes),
            "channels": data.channels,
            "image_size": [data.height, data.width],
            "dropout": 0.0,
        }
    )


def train_and_report(
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
    from bancache.report.results import append_once
    from bancache.system.device import environment, interruptible
    from bancache.training import train
    from bancache.training.distributed import join_process_group
    from bancache.training.record import run_record

    reporter, run = output.reporter(rank.rank), replace(run, ranks=rank.count)
    try:
        with join_process_group(rank, trainer.device, reporter) as group, interruptible() as interrupt:
            trained = train(
                run, data, test, trainer, cache=cache, progress=reporter, interrupt=interrupt, group=group
            )
    except StoppedError as stopped:
        if rank.rank == 0:
            raise
        raise typer.Exit(stopped.exit_code) from stopped  # rank 0 prints the line for all
    if rank.rank:
        return
    record = run_record(trained.checkpoint, trainer.checkpoint_path, seed=run.seed)
    about = {"command": console.command_line(), "environment": environment(trainer.device)}
    append_once(trainer.checkpoint_path.parent / "results.jsonl", {**record, **about}, "weights", "out")
    result = _result(record, trained.checkpoint, fresh=trained.fresh)
    if output.as_json:
        console.show_json(result)
    else:
        console.say(_line(result))


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
        f"test accuracy {result['test_accuracy']:.2%} after {result['epochs']} epochs, "
        f"{result['seconds']:,.1f} s, {result['images_per_second']:,.0f} images/s{state}"
    )
