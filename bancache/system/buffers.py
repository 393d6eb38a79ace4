"""Reuse of CPU memory for the tensors of batches.

A fresh tensor of some megabytes costs more than writing to it: the system maps and clears its pages one by one
(benchmarks/views.py). A buffer is used again only when no tensor, array or autograd graph shares its storage any more.
"""

from __future__ import annotations

import math
import weakref
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

_ALIGNMENT = 64  # bytes, as torch aligns its own tensors


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor that shares an array's memory, which may be sealed or mapped for reading: nothing writes to it."""
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Unsealed(array)))


class _Unsealed:
    """An array's memory as numpy reads it from any object. torch has no sealed tensors and warns of sealed arrays."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # lives as long as the tensor
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


class BufferPool:
    """Keeps a few buffers for CPU tensors of mostly one size; safe to use from several threads."""

    def __init__(self, limit: int = 4) -> None:
        """Keep at most ``limit`` buffers; beyond them, ``take`` returns ordinary memory."""
        self._limit, self._lock = limit, Lock()
        self._buffers: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[Any]]]] = []

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> torch.Tensor:
        """Return an uninitialized tensor that shares its memory with no other living tensor."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not size:
            return torch.from_numpy(np.empty(shape, dtype))
        with self._lock:
            buffer = self._idle(size)
            array: NDArray[Any] = np.ndarray(shape, dtype, buffer)
            if len(self._buffers) < self._limit:
                # The tensor's storage keeps this very array alive, so the reference dies with the storage.
                self._buffers.append((buffer, weakref.ref(array)))
        return torch.from_numpy(array)

    def _idle(self, size: int) -> NDArray[np.uint8]:
        """Take an unused buffer of this size out of the pool, or make one, in place of an unused one of another size."""
        other = None
        for index, (buffer, user) in enumerate(self._buffers):
            if user() is None:
                if buffer.size == size:
                    del self._buffers[index]
                    return buffer
                other = index if other is None else other
        if other is not None and len(self._buffers) == self._limit:
            del self._buffers[other]
        raw = np.empty(size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        return raw[start : start + size]
