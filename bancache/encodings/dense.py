"""Logits as they are: float32 to the last bit, or 16 bits of their distance to the row's maximum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.fields import FieldSpec
from bancache.errors import NonFiniteError, UsageError

_STORED = {"float32": "float32", "float16": "float16", "bfloat16": "int16"}  # numpy has no bfloat16: its bits


@dataclass(frozen=True)
class Dense:
    """One float a class.

    The 16-bit kinds keep ``z − max(z)``: the same distribution, with a float's finest steps, those near 0, where the
    large classes are.

    Attributes:
        classes: C.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """

    classes: int
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _STORED:
            raise UsageError(f"logits are kept as {', '.join(_STORED)}, not as '{self.dtype}'")

    @property
    def name(self) -> str:
        """The dtype's name."""
        return self.dtype

    @property
    def max_temperature(self) -> float:
        """Without limit."""
        return float("inf")

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``logits``, one float a class; bfloat16 as the int16 that has its bits."""
        return (FieldSpec("logits", _STORED[self.dtype], (self.classes,), ("class",)),)

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``logits`` (B, C) for float32 logits (B, C).

        Raises:
            NonFiniteError: A difference of logits exceeds float16.
        """
        if self.dtype == "float32":
            return {"logits": logits.to(torch.float32)}
        relative = logits - logits.amax(dim=1, keepdim=True)
        if self.dtype == "bfloat16":
            return {"logits": relative.to(torch.bfloat16).view(torch.int16)}
        if relative.numel() and float(relative.min()) < -65504:
            raise NonFiniteError(
                f"logits {float(-relative.min()):.3g} apart do not fit float16", hint="use --encoding float32"
            )
        return {"logits": relative.to(torch.float16)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the softmax of the logits divided by ``temperature``, float32 (B, C)."""
        stored = fields["logits"]
        logits = stored.view(torch.bfloat16) if self.dtype == "bfloat16" else stored
        return torch.softmax(logits.to(torch.float32).div(temperature), dim=1)

    def to_config(self) -> dict[str, Any]:
        """Return the dtype's name."""
        return {"name": self.name, "id": "dense-1"}
