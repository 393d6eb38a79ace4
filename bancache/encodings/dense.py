"""One float per class: the logit in 32 bits, or its distance to the row's largest in 16 bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.encodings.fields import FieldSpec
from bancache.errors import NonFiniteError, UsageError

# What each kind is stored as; numpy has no bfloat16, so its bits are stored as int16.
_STORED = {"float32": "float32", "float16": "float16", "bfloat16": "int16", "float16-shift": "float16"}
_FLOAT16_MAX = 65504


@dataclass(frozen=True)
class Dense:
    """One float per class.

    The 16-bit kinds keep ``z − max(z)``. The distribution is the same, and the large classes lie near 0, where floats
    have their finest steps. ``float16-shift`` keeps the row's largest logit too, for losses that need the logits.

    Attributes:
        classes: C.
        name: ``float32``, ``float16``, ``bfloat16`` or ``float16-shift``.
    """

    classes: int
    name: str
    max_temperature = math.inf

    def __post_init__(self) -> None:
        if self.name not in _STORED:
            raise UsageError(f"no dense encoding '{self.name}'", hint=f"use one of {', '.join(_STORED)}")

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``logits``, one float per class, and for ``float16-shift`` the row's largest, ``shift``."""
        logits = FieldSpec("logits", _STORED[self.name], (self.classes,), ("class",))
        return (logits, FieldSpec("shift", "float32", (), ())) if self.name == "float16-shift" else (logits,)

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``logits`` (B, C), and ``shift`` (B,) for ``float16-shift``; too wide a row is a NonFiniteError."""
        if self.name == "float32":
            return {"logits": logits.to(torch.float32)}
        largest = logits.amax(dim=1, keepdim=True)
        if self.name == "bfloat16":
            return {"logits": (logits - largest).to(torch.bfloat16).view(torch.int16)}
        encoded = {"logits": to_float16(logits - largest)}
        return {**encoded, "shift": largest[:, 0]} if self.name == "float16-shift" else encoded

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return softmax(logits / temperature), float32 (B, C)."""
        stored = fields["logits"]
        logits = stored.view(torch.bfloat16) if self.name == "bfloat16" else stored
        return torch.softmax(logits.to(torch.float32).div(temperature), dim=1)

    @property
    def has_logits(self) -> bool:
        """Whether the logits themselves are kept, not only their differences."""
        return self.name in ("float32", "float16-shift")

    def logits(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the teacher's logits, float32 (B, C); of ``float16-shift`` the largest exact, others to float16."""
        if self.name == "float32":
            return fields["logits"]
        return fields["logits"].to(torch.float32).add_(fields["shift"][:, None])

    def to_config(self) -> dict[str, Any]:
        """Return the name and the id of the format."""
        return {"name": self.name, "id": "dense-shift-1" if self.name == "float16-shift" else "dense-1"}


def to_float16(relative: torch.Tensor) -> torch.Tensor:
    """Return logits minus their row's largest as float16; NonFiniteError if a difference exceeds it.

    On a GPU that would have to wait for the numbers: ``require_float16`` says so when they are on the host.
    """
    if not relative.is_cuda and relative.numel() and (lowest := float(relative.min())) < -_FLOAT16_MAX:
        raise _too_wide(f"logits {-lowest:.3g} apart do not fit float16")
    return relative.to(torch.float16)


def require_float16(fields: Mapping[str, NDArray[Any]]) -> None:
    """Raise NonFiniteError if finite logits became infinite in fields of float16."""
    for values in fields.values():
        if values.dtype == np.float16 and not np.isfinite(values).all():
            raise _too_wide(f"logits more than {_FLOAT16_MAX} apart do not fit float16")


def _too_wide(what: str) -> NonFiniteError:
    return NonFiniteError(what, hint="use --encoding float32")
