"""The result line of a finished run, made from its checkpoint alone, so that it can be written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bancache.models.checkpoint import Checkpoint

_COPIED = (
    "generation",
    "parameters",
    "views",
    "test",
    "history",
    "recipe",
    "lineage",
    "seconds",
    "images_per_second",
)


def run_record(checkpoint: Checkpoint, out: Path, *, seed: int) -> dict[str, Any]:
    """Return the record of kind ``run``.

    Args:
        checkpoint: Of the finished run.
        out: Where it lies, as typed.
        seed: Which repetition this is; the run's own seed may be derived from it.
    """
    header = checkpoint.header
    taught = header["generation"] > 0
    return {
        "kind": "run",
        **{key: header[key] for key in _COPIED},
        # Checkpoints may be older than these.
        "trainable": header.get("trainable", header["parameters"]),
        "share_ends": header.get("share_ends", "none"),
        "label_weight": header.get("label_weight", 1.0),
        "ranks": header.get("ranks", 1),
        "seed": seed,
        "model": header["architecture"]["name"],
        "loss": header["recipe"]["loss"] if taught else "labels",
        "epochs": header["recipe"]["epochs"],
        "data": header["data_as_typed"],
        "limit": header["data"]["limit"],
        "num_views": header["num_views"] if taught else None,
        "weights": checkpoint.fingerprint,
        "out": str(out),
    }
