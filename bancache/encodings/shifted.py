"""Half-precision logits whose absolute place is kept beside them, for losses that need more than a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.dense import Dense
from bancache.encodings.fields import FieldSpec


@dataclass(frozen=True)
class ShiftedHalf:
    """``float16`` and the row's largest logit: the distribution to the same bit, and the logits themselves.

    Attributes:
        classes: C.
    """

    classes: int

    @property
    def name(self) -> str:
        """``float16-shift``."""
        return "float16-shift"

    @property
    def max_temperature(self) -> float:
        """Without limit."""
        return float("inf")

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``logits``, less the row's largest, and ``shift``, the largest."""
        return (*self._half.fields(), FieldSpec("shift", "float32", (), ()))

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``logits`` (B, C) and ``shift`` (B,) for float32 logits (B, C).

        Raises:
            NonFiniteError: A difference of logits exceeds float16.
        """
        return {**self._half.encode(logits), "shift": logits.amax(dim=1)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the softmax of the logits divided by ``temperature``, float32 (B, C)."""
        return self._half.probabilities(fields, temperature)

    def logits(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the teacher's logits, float32 (B, C): exact for the largest, as float16 keeps its distance for others."""
        return fields["logits"].to(torch.float32).add_(fields["shift"][:, None])

    def to_config(self) -> dict[str, Any]:
        """Return its name."""
        return {"name": self.name, "id": "dense-shift-1"}

    @property
    def _half(self) -> Dense:
        return Dense(self.classes, "float16")
