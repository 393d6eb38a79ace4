"""Statistics of a shard's logits: the teacher's accuracy, its confidence, and the encoding's loss.

They are computed on the teacher's device, one row of numbers per sample, and summed on the host when the shard is
complete. So no batch waits for the device, and several small batches share one measurement.
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

# After the figures of fidelity: whether the top class is right, the largest probability, non-finite logits.
_MORE = 3


class ShardStats:
    """The statistics of a shard, float64 (rows, FIGURES + 3), filled batch by batch."""

    def __init__(self, shard: Shard, encoding: Encoding, labels: torch.Tensor, *, batch_size: int) -> None:
        """Allocate the host's buffer.

        Args:
            shard: The shard.
            encoding: The encoding that is measured.
            labels: int64 (N,), of all samples, on the device of the logits.
            batch_size: Rows of each ``add``; the last one may have fewer.
        """
        self._shard, self._encoding, self._batch_size = shard, encoding, batch_size
        self._labels = labels[shard.start : shard.stop]
        self._figures = host_buffer((len(self._labels), FIGURES + _MORE), torch.float64, labels.device)
        self._classes, self._measured, self._added = 0, 0, 0
        self._waiting: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def add(self, logits: torch.Tensor, fields: dict[str, torch.Tensor]) -> None:
        """Add the next batch: logits float32 (B, C) and their encoded fields, each (B, *shape)."""
        self._waiting.append((logits, fields))
        self._classes, self._added = logits.shape[1], self._added + len(logits)
        following = self._added - self._measured + self._batch_size
        if self._added == len(self._labels) or following > rows_at_once(self._classes):
            part = slice(self._measured, self._added)
            self._figures[part].copy_(self._measure(self._labels[part]), non_blocking=True)
            self._waiting.clear()
            self._measured = self._added

    def facts(self) -> dict[str, Any]:
        """Return the sums as JSON values; all batches must be added and copied to the host.

        Raises:
            NonFiniteError: A logit is not finite.
        """
        figures = self._figures.numpy()
        right, confidence, non_finite = figures[:, FIGURES:].T
        _require_finite(non_finite, self._shard, 0)
        return {
            "tally": count(figures[:, :FIGURES]),
            "correct": int(right.sum()),
            "confidence": float(confidence.sum()),
            "finite": len(figures) * self._classes,
        }

    def _measure(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the statistics of the waiting batches."""
        logits = torch.cat([part for part, _ in self._waiting])
        names = self._waiting[0][1]
        fields = {name: torch.cat([part[name] for _, part in self._waiting]) for name in names}
        right = (logits.argmax(dim=1) == labels).double()
        confidence = torch.softmax(logits.double(), dim=1).amax(dim=1)
        more = torch.stack([right, confidence, _non_finite(logits).double()], dim=1)
        return torch.cat([measure(self._encoding, logits, fields).double(), more], dim=1)


def require_finite(logits: torch.Tensor, shard: Shard, start: int) -> None:
    """Refuse logits (B, C) that are not finite; they begin at row ``start`` of a shard.

    Raises:
        NonFiniteError: With the first sample and the view index.
    """
    _require_finite(_non_finite(logits).cpu().numpy(), shard, start)


def host_buffer(shape: tuple[int, ...], dtype: torch.dtype, source: torch.device) -> torch.Tensor:
    """Return host memory for asynchronous copies: pinned if ``source`` is a GPU."""
    return torch.empty(shape, dtype=dtype, pin_memory=source.type == "cuda")


def _non_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return the number of NaN or infinite logits in each row, int64 (B,)."""
    return torch.isfinite(logits).logical_not_().sum(dim=1)


def _require_finite(non_finite: NDArray[np.number[Any]], shard: Shard, start: int) -> None:
    if non_finite.any():
        sample = shard.start + start + int((non_finite > 0).argmax())
        raise NonFiniteError(
            f"the teacher gave {int(non_finite.sum())} non-finite logits, "
            f"first at sample {sample}, view {shard.view_index}",
            hint="the teacher has diverged or overflows: try --precision float32",
        )
