"""Gather and decode of root codes in one pass over memory with numba: the bits of ``Root.probabilities``.

Only for powers whose sums are exact (``Root.exact_power``): the order of such a sum leaves no trace, so it may become
vectors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from bancache.system.buffers import BufferPool
from bancache.system.cpu_prefetch import LINE, prefetch
from bancache.system.numba import Loop, loop

# Rows lie anywhere: those of the next so many codes are on their way while one is decoded, at least and at most so many rows.
_AHEAD, _FEWEST, _MOST = 3_000, 4, 48
_LINE = LINE // 4  # numbers in a line of the cache


class RowDecoder:
    """Turns rows of codes into max(q, zero)^power, each divided by its sum; all on the CPU."""

    def __init__(self, *, classes: int, power: int, zero: float) -> None:
        """Decode rows of C classes by a power of 1 to 4; a stored 0 stands for ``zero``."""
        self._classes, self._zero, self._memory = classes, np.float32(zero), BufferPool()
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
    ahead = max(_FEWEST, min(_MOST, _AHEAD // classes))

    @loop()
    def decode(codes: Any, samples: Any, zero: Any, out: Any) -> None:
        stored, width, last = codes.reshape(-1).view(np.uint8), classes * codes.itemsize, samples.size - 1
        # Weights that do not begin with a line of the cache take twice as long: vectors across two are stored in halves.
        room = np.empty(classes + _LINE, np.float32)
        begin = (_LINE - room.ctypes.data // room.itemsize % _LINE) % _LINE
        weights = room[begin : begin + classes]
        for row in range(min(ahead, samples.size)):
            _ask(stored, samples[row] * width, width)
        for row in range(samples.size):
            _ask(stored, samples[min(row + ahead, last)] * width, width)
            if samples[row] < 0 or samples[row] >= codes.shape[0]:
                raise IndexError("there is no such sample")
            source, target = codes[samples[row]], out[row]
            # The products of ``encodings.root``; what is asked of the power is known to the compiler.
            for i in range(classes):
                v = max(zero, np.float32(source[i]))
                if power == 1:
                    weights[i] = v
                elif power == 2:
                    weights[i] = v * v
                elif power == 3:
                    weights[i] = v * (v * v)
                else:
                    weights[i] = (v * v) * (v * v)
            factor = np.float32(1.0 / _sum(weights, classes))
            for i in range(classes):
                target[i] = weights[i] * factor

    return decode


@loop()
def _ask(stored: Any, start: int, width: int) -> None:
    for byte in range(0, width, LINE):
        prefetch(stored, start + byte)
    prefetch(stored, start + width - 1)


@loop(reorders=True)
def _sum(weights: Any, classes: int) -> Any:
    total = 0.0
    for i in range(classes):
        total += np.float64(weights[i])
    return total
