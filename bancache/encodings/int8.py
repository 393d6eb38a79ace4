"""One byte per class: the logit in even steps from the row's smallest to its largest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.fields import FieldSpec

_STEPS = 255


@dataclass(frozen=True)
class Int8Rows:
    """One byte per class and one float32 step per row; a row's largest logit is step 255, which means 0.

    Quantization libraries do this to activations. It is here for comparison: its steps are even in the logits, so a
    converged teacher's large classes get no more of them than its negligible ones.
    """

    classes: int
    name = "int8"
    max_temperature = math.inf  # the error of a logit is half a step, and a higher temperature divides it

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``q``, the steps, and ``step``, the size of a step in logits."""
        return FieldSpec("q", "uint8", (self.classes,), ("class",)), FieldSpec("step", "float32", (), ())

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``q`` (B, C) and ``step`` (B,) for float32 logits (B, C)."""
        largest, smallest = logits.amax(dim=1, keepdim=True), logits.amin(dim=1, keepdim=True)
        step = (largest - smallest) / _STEPS
        # A row of equal logits has step 0; dividing its zeros by 1 keeps them.
        below = ((largest - logits) / torch.where(step > 0, step, torch.ones_like(step))).round_()
        return {"q": (_STEPS - below).to(torch.uint8), "step": step[:, 0]}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return softmax(steps · step / temperature), float32 (B, C)."""
        steps = fields["q"].to(torch.float32).sub_(_STEPS)
        return torch.softmax(steps.mul_((fields["step"] / temperature)[:, None]), dim=1)

    def to_config(self) -> dict[str, Any]:
        """Return the name and the id of the format."""
        return {"name": self.name, "id": "int8-1"}
