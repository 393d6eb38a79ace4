"""Content hashes that are equal on every machine: sha256 over dtype, shape and little-endian bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 24


def fingerprint_arrays(arrays: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """Return the sha256 of named arrays in the given order: names, dtypes, shapes and values.

    >>> fingerprint_arrays([("a", np.zeros(3, np.uint8))])[:12]
    '6637b5620be9'
    """
    digest = hashlib.sha256()
    add_arrays(digest, arrays)
    return digest.hexdigest()


def add_arrays(digest: hashlib._Hash, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Add named arrays to a hash."""
    for name, array in arrays:
        begin_array(digest, name, array.dtype, array.shape)
        for part in _blocks(array):
            digest.update(np.ascontiguousarray(part, dtype=array.dtype.newbyteorder("<")).data)


def begin_array(digest: hashlib._Hash, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Add what comes before the values of an array, little-endian, which may then be added in parts."""
    digest.update(f"{name}\0{dtype.newbyteorder('<').str}\0{shape}\0".encode())


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
