"""Gather and decode of root codes in one pass over memory with numba: the bits of ``Root.probabilities``.

Only for powers whose sums are exact (``Root.exact_power``): the order of such a sum leaves no trace, so it may become
vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bancache.compiled import loop
from bancache.prefetch import LINE, prefetch

# Weights of so many classes stay in a core's first cache from one pass to the next.
_BLOCK = 8_192


def decode_rows(q: torch.Tensor, samples: torch.Tensor, *, power: int, zero: float) -> torch.Tensor:
    """Return max(q, zero)^power of some rows, each divided by its sum: float32 (B, C), all on the CPU.

    Args:
        q: uint8 or int16 (N, C), contiguous.
        samples: int64 (B,), the rows.
        power: 1 to 4.
        zero: What a stored 0 stands for.
    """
    out = torch.empty((len(samples), q.shape[1]))
    _decode(q.numpy(), samples.numpy(), power, zero, out.numpy())
    return out


@loop()
def _decode(codes: Any, samples: Any, power: int, zero: float, out: Any) -> None:
    classes = codes.shape[1]
    step = max(1, _BLOCK // max(1, classes))
    scratch = np.empty((step, classes), codes.dtype)
    _ask(codes, samples[:step])
    for first in range(0, samples.size, step):
        # Rows lie anywhere: those of the next block are on their way while this one is decoded.
        _ask(codes, samples[first + step : first + 2 * step])
        count = min(step, samples.size - first)
        for row in range(count):
            source, target = codes[samples[first + row]], scratch[row]
            for i in range(target.size):
                target[i] = source[i]
        part = out[first : first + count]
        # As one run: the ends of rows are seldom whole vectors.
        _weigh(scratch[:count].reshape(-1), power, np.float32(zero), part.reshape(-1))
        _normalise(part)


@loop()
def _ask(codes: Any, samples: Any) -> None:
    flat, width = codes.reshape(-1).view(np.uint8), codes.shape[1] * codes.itemsize
    for row in range(samples.size):
        start = samples[row] * width
        for byte in range(0, width, LINE):
            prefetch(flat, start + byte)
        prefetch(flat, start + width - 1)


@loop()
def _weigh(codes: Any, power: int, zero: Any, out: Any) -> None:
    """Raise to a power by the products of ``encodings.root``; one loop for each, without a question inside."""
    if power == 1:
        for i in range(codes.size):
            out[i] = max(zero, np.float32(codes[i]))
    elif power == 2:
        for i in range(codes.size):
            v = max(zero, np.float32(codes[i]))
            out[i] = v * v
    elif power == 3:
        for i in range(codes.size):
            v = max(zero, np.float32(codes[i]))
            out[i] = v * (v * v)
    else:
        for i in range(codes.size):
            v = max(zero, np.float32(codes[i]))
            v = v * v
            out[i] = v * v


@loop(reorders=True)
def _normalise(weights: Any) -> None:
    for row in range(weights.shape[0]):
        line, total = weights[row], 0.0
        for i in range(line.size):
            total += np.float64(line[i])
        inverse = np.float32(1.0 / total)
        for i in range(line.size):
            line[i] = line[i] * inverse
