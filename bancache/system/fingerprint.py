"""Content hashes that are equal on every machine: sha256 over dtype, shape and little-endian bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Bytes:
    """An array of bytes that is not in memory: its shape, and its values a part at a time."""

    shape: tuple[int, ...]
    parts: Iterable[NDArray[np.uint8]]


def fingerprint_arrays(arrays: Iterable[tuple[str, NDArray[Any] | Bytes]]) -> str:
    """Return the sha256 of named arrays in the given order: names, dtypes, shapes and values.

    >>> fingerprint_arrays([("a", np.zeros(3, np.uint8))])[:12]
    '6637b5620be9'
    """
    digest = hashlib.sha256()
    for name, array in arrays:
        dtype = np.dtype(np.uint8) if isinstance(array, Bytes) else array.dtype.newbyteorder("<")
        digest.update(f"{name}\0{dtype.str}\0{array.shape}\0".encode())
        for part in array.parts if isinstance(array, Bytes) else _blocks(array):
            digest.update(np.ascontiguousarray(part, dtype=dtype).data)
    return digest.hexdigest()


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array's values in blocks, so that a memory-mapped array is never copied whole."""
    flat = array.reshape(-1)
    rows = max(1, _BLOCK_BYTES // max(1, array.itemsize))
    return (flat[start : start + rows] for start in range(0, flat.size, rows))


def fingerprint_json(value: Any) -> str:
    """Return the sha256 of a JSON value; the order of keys does not matter.

    >>> fingerprint_json({"a": 1, "b": 2}) == fingerprint_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def short(fingerprint: str) -> str:
    """Return the first 12 hex digits, for messages."""
    return fingerprint[:12]
