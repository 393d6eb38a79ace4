"""Logits as they are: float32 to the last bit, or float16 of their distance to the row's maximum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from bancache.errors import NonFiniteError
from bancache.fields import FieldSpec


@dataclass(frozen=True)
class Dense:
    """One float a class.

    float16 keeps ``z − max(z)``: the same distribution, with its precision where the large classes are, which
    on a converged teacher gives a sixteenth of the divergence of float16 logits in four fifths of the bytes.
    """

    classes: int
    dtype: Literal["float32", "float16"]

    @property
    def name(self) -> str:
        """The dtype's name."""
        return self.dtype

    @property
    def max_temperature(self) -> float:
        """Without limit."""
        return float("inf")

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``logits``, one float a class."""
        return (FieldSpec("logits", self.dtype, (self.classes,), ("class",)),)

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``logits`` (B, C) for float32 logits (B, C).

        Raises:
            NonFiniteError: A difference of logits exceeds float16.
        """
        if self.dtype == "float32":
            return {"logits": logits.to(torch.float32)}
        relative = logits - logits.amax(dim=1, keepdim=True)
        if relative.numel() and float(relative.min()) < -65504:
            raise NonFiniteError(
                f"logits {float(-relative.min()):.3g} apart do not fit float16", hint="use --encoding float32"
            )
        return {"logits": relative.to(torch.float16)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the softmax of the logits divided by ``temperature``, float32 (B, C)."""
        return torch.softmax(fields["logits"].to(torch.float32).div(temperature), dim=1)

    def to_config(self) -> dict[str, Any]:
        """Return the dtype's name."""
        return {"name": self.name, "id": "dense-1"}
