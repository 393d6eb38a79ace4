"""What both training commands do once they know their run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from bancache_cli import console

if TYPE_CHECKING:
    from bancache.cache.reader import Cache
    from bancache.sources.base import ImageSet
    from bancache.system.ranks import Rank
    from bancache.training import Run, TrainerOptions


def recipe_changes(
    *,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    weight_decay: float | None,
    amp: bool | None,
    compile_net: bool,
    device_type: str,
) -> dict[str, Any]:
    """Return the settings that the command line changes in a preset."""
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "amp": device_type == "cuda" if amp is None else amp,
        "compile": compile_net,
    }


def architecture_for(
    model: str, data: ImageSet, dropout: float | None, checkpoint_activations: bool
) -> dict[str, Any]:
    """Return a net's name and its arguments: those that the data decide, and those that were asked for."""
    plain = {
        "name": model,
        "classes": len(data.classes),
        "channels": data.channels,
        "image_size": [data.height, data.width],
        "dropout": 0.0,
    }
    return changed(plain, dropout, checkpoint_activations)


def changed(
    architecture: dict[str, Any], dropout: float | None, checkpoint_activations: bool
) -> dict[str, Any]:
    """Return an architecture with what the command line asks for; what it does not mention stays."""
    asked = {"dropout": dropout, "checkpoint_activations": checkpoint_activations or None}
    return {**architecture, **{key: value for key, value in asked.items() if value is not None}}


def train_and_tell(
    run: Run,
    data: ImageSet,
    test: ImageSet,
    place: TrainerOptions,
    *,
    cache: Cache | None,
    seed: int,
    among: Rank,
    as_json: bool,
    reporter: console.Reporter,
) -> None:
    """Train, write the result line, print the result; of several processes, the first writes and prints."""
    from bancache.errors import StoppedError
    from bancache.report.results import append_once
    from bancache.system.device import environment, interruptible
    from bancache.training import train
    from bancache.training.distributed import join_process_group
    from bancache.training.record import run_record

    run = replace(run, ranks=among.count)
    try:
        with join_process_group(among, place.device, reporter) as group, interruptible() as interrupt:
            trained = train(
                run, data, test, place, cache=cache, progress=reporter, interrupt=interrupt, group=group
            )
    except StoppedError as stopped:
        if among.rank == 0:
            raise
        raise typer.Exit(stopped.exit_code) from stopped  # one of them says it for all
    if among.rank:
        return
    record = run_record(trained.checkpoint, place.out, seed=seed)
    where = {"command": console.command_line(), "environment": environment(place.device)}
    append_once(place.checkpoint_path.parent / "results.jsonl", {**record, **where}, "weights", "out")
    header = trained.checkpoint.header
    if as_json:
        console.show_json(
            {
                "out": str(place.out),
                "model": record["model"],
                "generation": record["generation"],
                "loss": record["loss"],
                "test_accuracy": header["test"]["accuracy"],
                "epochs": record["epochs"],
                "parameters": header["parameters"],
                "trainable": record["trainable"],
                "share_ends": record["share_ends"],
                "seconds": header["seconds"],
                "images_per_second": header["images_per_second"],
                "weights": trained.checkpoint.fingerprint,
                "trained": trained.fresh,
            }
        )
        return
    state = "" if trained.fresh else " (was complete already)"
    console.say(
        f"{place.out}: {record['model']}, generation {record['generation']}, "
        f"test accuracy {header['test']['accuracy']:.2%} after {record['epochs']} epochs, "
        f"{header['seconds']:,.1f} s, {header['images_per_second']:,.0f} images/s{state}"
    )
