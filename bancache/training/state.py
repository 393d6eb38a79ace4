"""TrainState: a run in flight, saved between two steps so that going on gives the same bits as not stopping."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bancache.errors import CheckpointError
from bancache.models.checkpoint import load_own, save_tensors

# What is added to a checkpoint's name while its run is under way.
SUFFIX = ".resume"


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        epoch: Epochs that are finished.
        step: Steps of the current epoch that are finished.
        loss: Sum of the mean losses of this process's batches in this epoch, float64 scalar on the device.
        correct: Its right answers in this epoch, int64 scalar on the device.
        history: One object for each finished epoch.
        seconds: Spent training, over all attempts.
    """

    epoch: int = 0
    step: int = 0
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    correct: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def save_state(
    path: Path, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, Any]
) -> None:
    """Write everything that the rest of the run depends on, whole or not at all.

    Where several processes train, ``loss`` and ``correct`` of the state are those of each, (ranks,).

    Raises:
        StorageError: The disk is full, read-only or failing; the state before it stays.
    """
    device = next(model.parameters()).device
    save_tensors(
        path,
        {
            "run": run,
            "epoch": state.epoch,
            "step": state.step,
            "loss": state.loss.cpu(),
            "correct": state.correct.cpu(),
            "history": state.history,
            "seconds": state.seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        },
    )


def read_state(path: Path) -> dict[str, Any]:
    """Read a state without using it; its ``run`` says whose it is.

    Raises:
        CheckpointError: The file is truncated or not a state.
    """
    try:
        content = load_own(path)
    except CheckpointError as error:
        raise _unusable(path, error) from error
    if not isinstance(content, dict) or not isinstance(content.get("run"), dict):
        raise _unusable(path, "it is not the state of a run")
    return content


def restore_state(
    path: Path, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, *, rank: int = 0
) -> TrainState:
    """Put model, optimizer and generators where they were when ``content`` was saved at ``path``.

    Where several processes train, ``rank`` says whose sums are taken.

    Raises:
        CheckpointError: Something is missing or of another shape.
    """
    device = next(model.parameters()).device
    try:
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"])
        if device.type == "cuda" and content["device_rng"] is not None:
            torch.cuda.set_rng_state(content["device_rng"], device)
        return TrainState(
            content["epoch"],
            content["step"],
            content["loss"].reshape(-1)[rank].to(device),
            content["correct"].reshape(-1)[rank].to(device),
            content["history"],
            content["seconds"],
        )
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, reason: object) -> CheckpointError:
    """A state is written whole or not at all, so this is damage from outside; the run itself is not lost."""
    return CheckpointError(
        f"{path} cannot be resumed from: {str(reason).splitlines()[0]}",
        hint="remove it or use --overwrite to start anew",
    )
