"""What a loader wants of soft targets, wherever they come from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from bancache.losses.weights import Codes


class Targets(Protocol):
    """Gives a teacher's probabilities for views of samples."""

    def begin(self, view_index: int, following: int) -> None:
        """Make a view current; ``following`` is the view index that comes next."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, classes) for samples (B,) whose current views are ``images``."""


@runtime_checkable
class CodedTargets(Targets, Protocol):
    """Targets that a loss can also decode itself."""

    def codes(self) -> Codes | None:
        """Return the current view's encoded targets; None if the encoding has no codes."""

    def logits(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return the teacher's logits, float32 (B, classes); None if the encoding keeps none."""

    def hold(self) -> None:
        """Copy each view's targets into the same buffers from now on."""
