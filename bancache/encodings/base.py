"""The contract of an encoding; ``tests/contracts/encoding.py`` tests it for every encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bancache.encodings.fields import FieldSpec

if TYPE_CHECKING:
    import torch


class Encoding(Protocol):
    """Turns logits into the arrays that a cache stores, and these arrays into probabilities.

    Rows are independent of one another: encoding a batch gives the same bytes as encoding its rows.
    """

    @property
    def name(self) -> str:
        """What ``--encoding`` calls it."""

    @property
    def max_temperature(self) -> float:
        """The highest temperature at which its probabilities are accurate enough; infinity without a limit."""

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return the arrays of one (sample, view) pair."""

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fields of float32 logits (B, classes), each (B, *shape), on the logits' device."""

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return softmax(logits / temperature) within quantization error, float32 (B, classes), rows summing to 1."""

    def to_config(self) -> dict[str, Any]:
        """Return JSON values from which ``from_config`` builds an equal encoding."""
