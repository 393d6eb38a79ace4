"""How other projects encode soft targets: logits in 16 bits, and TinyViT's top-k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.fields import FieldSpec

_LEAST = 2.0**-24  # the smallest number of float16


@dataclass(frozen=True)
class Plain:
    """Logits of the model, rounded to 16 bits."""

    classes: int
    dtype: torch.dtype

    name = "plain"
    max_temperature = float("inf")

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``logits``."""
        return (FieldSpec("logits", "int16", (self.classes,), ("class",)),)

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the bits of the rounded logits (B, C)."""
        return {"logits": logits.to(self.dtype).view(torch.int16)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the softmax."""
        return torch.softmax(fields["logits"].view(self.dtype).to(torch.float32) / temperature, dim=1)

    def to_config(self) -> dict[str, Any]:
        """Return nothing: it is never written to a cache."""
        return {}


@dataclass(frozen=True)
class TinyViT:
    """The k largest probabilities in float16 with int16 classes, the rest spread evenly (Wu et al., 2022)."""

    classes: int
    k: int

    name = "tinyvit"
    max_temperature = 1.0

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``index`` and ``values``."""
        return (
            FieldSpec("index", "int16", (self.k,), ("rank",)),
            FieldSpec("values", "float16", (self.k,), ("rank",)),
        )

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return classes and probabilities (B, k), largest first."""
        values, index = torch.softmax(logits, dim=1).topk(min(self.k, self.classes), dim=1)
        return {"index": index.to(torch.int16), "values": values.to(torch.float16)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return the distribution; at another temperature than 1, its power, since nothing else is known."""
        values = fields["values"].to(torch.float32)
        rest = (1 - values.sum(dim=1, keepdim=True)) / max(1, self.classes - self.k)
        rest = rest.clamp(min=_LEAST)  # rounded values may sum to more than 1
        full = rest.expand(-1, self.classes).scatter(1, fields["index"].to(torch.int64), values)
        if temperature != 1:
            full = full.pow(1 / temperature)
        return full / full.sum(dim=1, keepdim=True)

    def to_config(self) -> dict[str, Any]:
        """Return nothing: it is never written to a cache."""
        return {}
