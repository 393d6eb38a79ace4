"""Gather and decode of root codes in one pass over memory with numba: the bits of ``Root.probabilities``.

Only for powers whose sums are exact (``Root.exact_power``): the order of such a sum leaves no trace, so it may become
vectors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from bancache.compiled import Loop, loop
from bancache.memory import BatchMemory
from bancache.prefetch import LINE, prefetch

# So many codes are decoded together: their weights and the codes that arrive meanwhile leave room in a core's first cache.
_TOGETHER = 6_000


class RowDecoder:
    """Turns rows of codes into max(q, zero)^power, each divided by its sum; all on the CPU."""

    def __init__(self, *, classes: int, power: int, zero: float) -> None:
        """Decode rows of C classes by a power of 1 to 4; a stored 0 stands for ``zero``."""
        self._classes, self._zero, self._memory = classes, np.float32(zero), BatchMemory()
        self._decode = _compiled(classes, power)

    def show(self, q: torch.Tensor) -> None:
        """Take the codes that are decoded from now on, uint8 or int16 (N, C), contiguous."""
        self._codes = q.numpy()

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the rows of samples, int64 (B,), as float32 (B, C).

        Raises:
            IndexError: There is no such row.
        """
        rows = samples.numpy()
        out = self._memory.take_array((rows.size, self._classes), np.float32)
        self._decode(self._codes, rows, self._zero, out)
        return torch.from_numpy(out)


@cache
def _compiled(classes: int, power: int) -> Loop:
    """Return the loop for so many classes: a compiler that knows them leaves no ends of rows to single steps."""
    step = max(1, _TOGETHER // classes)

    @loop()
    def decode(codes: Any, samples: Any, zero: Any, out: Any) -> None:
        stored, width = codes.reshape(-1).view(np.uint8), classes * codes.itemsize
        together = np.empty((step, classes), codes.dtype)
        for row in range(min(step, samples.size)):
            _ask(stored, samples[row] * width, width)
        for first in range(0, samples.size, step):
            part = out[first : first + step]
            for row in range(part.shape[0]):
                sample = samples[first + row]
                if sample < 0 or sample >= codes.shape[0]:
                    raise IndexError("there is no such sample")
                source, target = codes[sample], together[row]
                for i in range(classes):
                    target[i] = source[i]
            _weigh(together[: part.shape[0]].reshape(-1), power, zero, part.reshape(-1))
            for row in range(part.shape[0]):
                # Rows lie anywhere: those that come next are on their way while these are decoded.
                _ask(stored, samples[min(first + step + row, samples.size - 1)] * width, width)
                weights = part[row]
                factor = np.float32(1.0 / _sum(weights, classes))
                for i in range(classes):
                    weights[i] = weights[i] * factor

    return decode


@loop()
def _ask(stored: Any, start: int, width: int) -> None:
    for byte in range(0, width, LINE):
        prefetch(stored, start + byte)
    prefetch(stored, start + width - 1)


@loop()
def _weigh(codes: Any, power: int, zero: Any, weights: Any) -> None:
    """Raise to a power by the products of ``encodings.root``."""
    for i in range(codes.size):
        v = max(zero, np.float32(codes[i]))
        if power == 1:
            weights[i] = v
        elif power == 2:
            weights[i] = v * v
        elif power == 3:
            weights[i] = v * (v * v)
        else:
            weights[i] = (v * v) * (v * v)


@loop(reorders=True)
def _sum(weights: Any, classes: int) -> Any:
    total = 0.0
    for i in range(classes):
        total += np.float64(weights[i])
    return total
