"""TrainerOptions: where and how a run is carried out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bancache.errors import UsageError
from bancache.loader.placement import Placement
from bancache.training.recorded import SUFFIX

GraphMode = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class TrainerOptions:
    """Where and how a run is carried out. On a CPU no option changes the final weights, on a GPU none but ``placement``.

    Attributes:
        out: The checkpoint to write. The epoch log and the resume state are written next to it.
        device: Device of the model and of the batches.
        save_every: Seconds between two saved states, so what a killed run loses at most; 0 saves after every step.
        eval_every: Epochs between two evaluations on the test split; 0 evaluates only at the end.
        overwrite: Start anew instead of resuming.
        teacher: The teacher's checkpoint, for a run that shares the teacher's first and last layer.
        placement: Memory that holds the images and the targets.
        graph: ``on`` runs every step as one CUDA graph, ``off`` never does, ``auto`` does where it is possible.
        tensorboard: A directory for TensorBoard events. The JSON log is always written.

    Raises:
        UsageError: ``out`` is a folder, or ``graph`` is ``on`` without a CUDA device.
    """

    out: str | os.PathLike[str]
    device: torch.device
    save_every: float = 60.0
    eval_every: int = 1
    overwrite: bool = False
    teacher: str | os.PathLike[str] | None = None
    placement: Placement = "auto"
    graph: GraphMode = "auto"
    tensorboard: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_path.is_dir():
            raise UsageError(
                f"{self.out} is a folder", hint=f"name a file, such as {self.checkpoint_path / 'gen0.pt'}"
            )
        if self.graph == "on" and self.device.type != "cuda":
            raise UsageError(
                f"a CUDA graph needs a CUDA device, and this run is on '{self.device.type}'",
                hint="leave out --graph, or use --device cuda",
            )

    @property
    def checkpoint_path(self) -> Path:
        """``out`` as a path."""
        return Path(self.out)

    @property
    def state_path(self) -> Path:
        """The state to resume from, which exists while the run is not finished."""
        return Path(f"{self.checkpoint_path}{SUFFIX}")

    @property
    def log_path(self) -> Path:
        """The epoch log: one JSON line per finished epoch."""
        return Path(f"{self.checkpoint_path}.jsonl")
