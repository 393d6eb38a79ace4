"""Where and how a run is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bancache.errors import UsageError
from bancache.loader.placement import Placement
from bancache.training.state import SUFFIX

GraphMode = Literal["auto", "on", "off"]
_LOG = ".jsonl"


@dataclass(frozen=True)
class TrainerOptions:
    """Where and how a run is carried out; nothing here changes what it ends with.

    Attributes:
        out: The checkpoint to write; its log, and while the run is under way its state, lie beside it.
        device: Where it computes.
        save_every: Seconds between saved states; 0 saves after every step.
        eval_every: Epochs between looks at the test split; 0 looks only at the end.
        overwrite: Start anew instead of going on.
        teacher: The teacher's checkpoint, for a run that takes its ends.
        placement: Where images and the teacher's answers lie.
        graph: Whether the whole step is one CUDA graph: ``on``, ``off``, or by default where it can be captured.
        tensorboard: A directory for TensorBoard's events, too; the log of JSON lines is always kept.

    Raises:
        UsageError: ``out`` is a folder, or a graph is asked for where there are none.
    """

    out: Path
    device: torch.device
    save_every: float = 60.0
    eval_every: int = 1
    overwrite: bool = False
    teacher: Path | None = None
    placement: Placement = "auto"
    graph: GraphMode = "auto"
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        if self.out.is_dir():
            raise UsageError(f"{self.out} is a folder", hint=f"name a file, such as {self.out / 'net.pt'}")
        if self.graph == "on" and self.device.type != "cuda":
            raise UsageError(
                f"a CUDA graph needs a CUDA device, and this run is on '{self.device.type}'",
                hint="leave out --graph, or use --device cuda",
            )

    @property
    def state_path(self) -> Path:
        """Where the state of a run under way lies."""
        return self.out.with_name(self.out.name + SUFFIX)

    @property
    def log_path(self) -> Path:
        """Where one line for each finished epoch is written while the run is under way, and stays."""
        return self.out.with_name(self.out.name + _LOG)
