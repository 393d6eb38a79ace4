"""Memory for batches that is handed out again once nobody refers to it.

A fresh tensor of some megabytes costs more than what is written to it: the system maps its pages one by one
and clears them (benchmarks/views.py). Nobody can tell such a tensor from a fresh one, since a block is only used
again when every tensor, view, array and graph that shared its storage is gone.
"""

from __future__ import annotations

import math
import weakref
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

_LINE = 64  # bytes of a cache line, to which torch aligns its own tensors


class BufferPool:
    """A few blocks of memory on the CPU, for tensors of mostly one size; safe to use from several threads."""

    def __init__(self, blocks: int = 4) -> None:
        """Keep at most so many blocks; what is asked for beyond them is ordinary memory."""
        self._most, self._lock = blocks, Lock()
        self._blocks: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[Any]]]] = []

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> torch.Tensor:
        """Return an uninitialized tensor that shares its memory with no other that is alive."""
        return torch.from_numpy(self.take_array(shape, dtype))

    def take_array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialized array whose memory is in use as long as this very object, or a tensor made of it, is.

        Arrays that are made of it do not count, since numpy lets them refer to what is behind it.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not size:
            return np.empty(shape, dtype)
        with self._lock:
            block = self._free(size)
            array: NDArray[Any] = np.ndarray(shape, dtype, block)
            if len(self._blocks) < self._most:
                self._blocks.append((block, weakref.ref(array)))
        return array

    def _free(self, size: int) -> NDArray[np.uint8]:
        """Return a block that nobody uses, no longer among those that are kept; a new one in place of one of other size."""
        idle = None
        for place, (block, user) in enumerate(self._blocks):
            if user() is None:
                if block.size == size:
                    del self._blocks[place]
                    return block
                idle = place if idle is None else idle
        if idle is not None and len(self._blocks) == self._most:
            del self._blocks[idle]
        return _aligned(size)


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.empty(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + size]
