"""TrainState: everything that changes during a run. A run that resumes from a saved state ends with the same bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct
from torch import nn

from bancache.errors import CheckpointError
from bancache.models.checkpoint import load_tensors, save_tensors
from bancache.system.checked import Amount, Count, Finite, Name, Share, checked
from bancache.system.device import arithmetic


class _Epoch(Struct):
    epoch: Count
    loss: Finite
    train_accuracy: Share
    learning_rate: Amount
    test_accuracy: Share | None = None


class _Optimizer(Struct):
    state: dict[int, dict[str, torch.Tensor | None]]


class _Saved(Struct):
    run: dict[str, Any]
    epoch: Count
    step: Count
    loss: torch.Tensor
    correct: torch.Tensor
    history: Annotated[list[_Epoch], Meta(max_length=1 << 20)]
    seconds: Amount
    model: dict[str, torch.Tensor]
    optimizer: _Optimizer
    rng: torch.Tensor
    averaged: dict[str, torch.Tensor] | None = None
    device_rng: torch.Tensor | None = None
    # States of earlier versions lack both.
    device: Name | None = None
    golden: Name | None = None


@dataclass
class TrainState:
    """A run between two steps: its finished epochs, and the finished steps of the current epoch.

    ``loss`` (float64) and ``correct`` (int64) are sums over this process's batches in the current epoch, scalars on the
    model's device. ``averaged`` is the moving average of the model, if the recipe has one. ``history`` has one record for
    each finished epoch. ``seconds`` counts all attempts.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: nn.Module | None = None
    epoch: int = 0
    step: int = 0
    loss: torch.Tensor = field(init=False)
    correct: torch.Tensor = field(init=False)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def result(self) -> nn.Module:
        """What is evaluated and written: the averaged model if there is one."""
        return self.model if self.averaged is None else self.averaged

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device


def save_state(
    path: Path,
    state: TrainState,
    run: dict[str, Any],
    *,
    loss: torch.Tensor,
    correct: torch.Tensor,
    golden: str,
) -> None:
    """Write a state and the generators of random numbers, atomically.

    The state of one process stands for all, except for its sums: ``loss`` and ``correct`` are those of each process,
    (ranks,), or scalars. ``golden`` is the hash of a few views as this model sees them.
    """
    device = state.device
    save_tensors(
        path,
        {
            "run": run,
            "epoch": state.epoch,
            "step": state.step,
            "loss": loss.cpu(),
            "correct": correct.cpu(),
            "history": state.history,
            "seconds": state.seconds,
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "averaged": None if state.averaged is None else state.averaged.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "device": arithmetic(device)["device"],
            "golden": golden,
        },
    )


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file. Its ``run`` holds the settings of the run that wrote it."""
    try:
        content = load_tensors(path)
        saved = checked(content, _Saved, name="its content", error=CheckpointError)
    except CheckpointError as error:
        raise _unusable(path, error) from error
    if len(saved.history) != saved.epoch:
        raise _unusable(path, f"it has {len(saved.history)} records of {saved.epoch} epochs")
    return dict(content)


def restore_state(path: Path, content: dict[str, Any], state: TrainState, *, rank: int = 0) -> None:
    """Set ``state``, with the sums of process ``rank``, and the generators of random numbers to the content of ``path``."""
    try:
        state.model.load_state_dict(content["model"])
        if state.averaged is not None:
            state.averaged.load_state_dict(content["averaged"])
        # Rates and momentum are those of the run; the file has what they did.
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": groups})
        for parameter, moments in state.optimizer.state.items():
            if any(m is not None and m.shape not in ((), parameter.shape) for m in moments.values()):
                raise ValueError("a moment of the optimizer has another shape than its parameter")
        torch.set_rng_state(content["rng"])
        if state.device.type == "cuda" and content.get("device_rng") is not None:
            torch.cuda.set_rng_state(content["device_rng"], state.device)
        state.epoch, state.step = content["epoch"], content["step"]
        state.loss.copy_(content["loss"].reshape(-1)[rank])
        state.correct.copy_(content["correct"].reshape(-1)[rank])
        state.history, state.seconds = content["history"], content["seconds"]
    # torch checks neither the optimizer's groups nor the kind of a generator's state.
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, reason: object) -> CheckpointError:
    """Return the error for a state that was damaged after it was written: writing is atomic."""
    return CheckpointError(
        f"{path} cannot be resumed from: {str(reason).splitlines()[0]}",
        hint="remove it or use --overwrite to start anew",
    )
