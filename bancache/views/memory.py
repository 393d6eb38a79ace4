"""Memory for batches that is handed out again once nobody refers to it.

A fresh tensor of some megabytes costs more than what is written to it: the system maps its pages one by one
and clears them (benchmarks/views.py). Nobody can tell such a tensor from a fresh one, since a block is only used
again when every tensor, view, array and graph that shared its storage is gone.
"""

from __future__ import annotations

import math
import weakref
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

_LINE = 64  # bytes of a cache line, to which torch aligns its own tensors


class BatchMemory:
    """A few blocks of memory on the CPU, for tensors of mostly one size; safe to use from several threads."""

    def __init__(self, blocks: int = 4) -> None:
        """Keep at most so many blocks; what is asked for beyond them is ordinary memory."""
        self._most, self._lock = blocks, Lock()
        self._blocks: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor that shares its memory with no other that is alive."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        with self._lock:
            free = next(
                (i for i, (b, user) in enumerate(self._blocks) if b.size == size and user() is None), None
            )
            if free is not None:
                block = self._blocks.pop(free)[0]
            else:
                block = _aligned(size)
                self._make_room()
            # The storage holds this very array until the last tensor over it is gone.
            handle = block[:]
            if len(self._blocks) < self._most:
                self._blocks.append((block, weakref.ref(handle)))
            return torch.from_numpy(handle).view(dtype).view(shape)

    def _make_room(self) -> None:
        """Forget a block that nobody uses when there are as many as are kept: sizes have changed."""
        if len(self._blocks) == self._most:
            idle = next((i for i, (_, user) in enumerate(self._blocks) if user() is None), None)
            if idle is not None:
                del self._blocks[idle]


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.empty(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + size]
