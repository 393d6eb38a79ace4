"""The records of a finished run: the header of its checkpoint, and its result line made from the checkpoint alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bancache.evaluation.predict import Scores
from bancache.models.checkpoint import Checkpoint
from bancache.training.recipe import loss_label
from bancache.training.run import Run
from bancache.training.state import TrainState

_COPIED = ("generation", "parameters", "views", "test", "history", "recipe", "lineage", "seconds", "images_per_second")  # fmt: skip


def checkpoint_header(
    run: Run, state: TrainState, scores: Scores, classes: Sequence[str], *, images: int
) -> dict[str, Any]:
    """Return the header of a finished run's checkpoint; all its epochs together used ``images`` training images."""
    parameters = list(state.model.parameters())
    return {
        **run.to_dict(),
        "data": run.data.resolved().to_dict(),
        "data_as_typed": run.data.source,
        "classes": list(classes),
        "views": run.space.name,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "history": state.history,
        "test": asdict(scores),
        "seconds": round(state.seconds, 3),
        "images_per_second": round(images / max(state.seconds, 1e-9), 1),
    }


def run_record(checkpoint: Checkpoint, out: str | os.PathLike[str], *, seed: int) -> dict[str, Any]:
    """Return the result line of kind ``run``; ``seed`` is the number of the repetition, not the run's own seed."""
    header = checkpoint.header
    taught = header["generation"] > 0
    return {
        "kind": "run",
        **{key: header[key] for key in _COPIED},
        # Older checkpoints lack the next five.
        "trainable": header.get("trainable", header["parameters"]),
        "share_ends": header.get("share_ends", "none"),
        "label_weight": header.get("label_weight", 1.0),
        "ranks": header.get("ranks", 1),
        "side_by_side": header.get("side_by_side", 1),
        "seed": seed,
        "model": header["architecture"]["name"],
        "loss": loss_label(header["recipe"]) if taught else "labels",
        "epochs": header["recipe"]["epochs"],
        "data": header["data_as_typed"],
        "limit": header["data"]["limit"],
        "num_views": header["num_views"] if taught else None,
        "weights": checkpoint.fingerprint,
        "out": str(out),
    }
