"""What is found of a shard's answers beside what is written of them: how many are right, and what the encoding loses.

One row of numbers an entry, made where the answers are and added up on the host once the shard is complete: nothing waits
for a device between two batches, and small batches share the many small operations that it takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Shard
from bancache.encodings import Encoding
from bancache.encodings.fidelity import FIGURES, count, measure, rows_at_once
from bancache.errors import NonFiniteError

# Beside those of fidelity: whether the answer is right, the largest probability, how many logits are not finite.
_MORE = 3


class ShardStats:
    """The figures of a shard, float64 (rows, FIGURES + 3), batch after batch."""

    def __init__(self, shard: Shard, encoding: Encoding, labels: torch.Tensor, *, batch_size: int) -> None:
        """Make room on the host.

        Args:
            shard: Whose answers will be added.
            encoding: Which makes what is written.
            labels: int64 (N,), of all samples, on the device of the answers.
            batch_size: As many answers as are added at once, or fewer at the end.
        """
        self._shard, self._encoding, self._batch_size = shard, encoding, batch_size
        self._labels = labels[shard.start : shard.stop]
        self._figures = host_room((len(self._labels), FIGURES + _MORE), torch.float64, labels.device)
        self._classes, self._measured, self._added = 0, 0, 0
        self._waiting: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def add(self, logits: torch.Tensor, fields: dict[str, torch.Tensor]) -> None:
        """Take the next batch: logits float32 (B, C) and what is written of them, each (B, *shape)."""
        self._waiting.append((logits, fields))
        self._classes, self._added = logits.shape[1], self._added + len(logits)
        following = self._added - self._measured + self._batch_size
        if self._added == len(self._labels) or following > rows_at_once(self._classes):
            part = slice(self._measured, self._added)
            self._figures[part].copy_(self._measure(self._labels[part]), non_blocking=True)
            self._waiting.clear()
            self._measured = self._added

    def facts(self) -> dict[str, Any]:
        """Return sums, once all batches were added and have arrived on the host.

        Raises:
            NonFiniteError: A logit is not finite.
        """
        figures = self._figures.numpy()
        right, confidence, infinite = figures[:, FIGURES:].T
        _require_finite(infinite, self._shard, 0)
        return {
            "tally": count(figures[:, :FIGURES]),
            "correct": int(right.sum()),
            "confidence": float(confidence.sum()),
            "finite": len(figures) * self._classes,
        }

    def _measure(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the figures of all that wait."""
        logits = torch.cat([part for part, _ in self._waiting])
        names = self._waiting[0][1]
        fields = {name: torch.cat([part[name] for _, part in self._waiting]) for name in names}
        right = (logits.argmax(dim=1) == labels).double()
        confidence = torch.softmax(logits.double(), dim=1).amax(dim=1)
        more = torch.stack([right, confidence, _infinite(logits).double()], dim=1)
        return torch.cat([measure(self._encoding, logits, fields).double(), more], dim=1)


def require_finite(logits: torch.Tensor, shard: Shard, done: int) -> None:
    """Refuse logits (B, C) of a shard's samples, ``done`` of which came before, unless all are finite.

    Raises:
        NonFiniteError: Names the first sample and the view index.
    """
    _require_finite(_infinite(logits).cpu().numpy(), shard, done)


def host_room(shape: tuple[int, ...], dtype: torch.dtype, source: torch.device) -> torch.Tensor:
    """Return host memory to which copies from a GPU need not be waited for."""
    return torch.empty(shape, dtype=dtype, pin_memory=source.type == "cuda")


def _infinite(logits: torch.Tensor) -> torch.Tensor:
    """Return how many logits of each row are infinite or no numbers, int64 (B,)."""
    return torch.isfinite(logits).logical_not_().sum(dim=1)


def _require_finite(infinite: NDArray[np.number[Any]], shard: Shard, done: int) -> None:
    if infinite.any():
        first = shard.start + done + int((infinite > 0).argmax())
        raise NonFiniteError(
            f"the teacher gave {int(infinite.sum())} non-finite logits, first sample {first}, view {shard.view_index}",
            hint="the teacher has diverged, or overflows: try --precision float32",
        )
