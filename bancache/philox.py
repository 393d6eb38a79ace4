"""philox4x32-10 (Salmon et al., SC 2011): 128 random bits as a pure function of a counter and a key.

It uses integer arithmetic only, so numpy, torch and a GPU kernel give the same bits. The tests check it against the
known answers of the Random123 distribution. Every random choice in bancache is one call with an address as its
counter: there is no state, and no draw depends on an earlier one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the two words of the key in each round
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_PART = 1 << 13  # the words of this many counters fit a core's cache

Words64 = NDArray[np.uint64]


def philox(
    key: tuple[int, int], c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike
) -> tuple[Words64, Words64, Words64, Words64]:
    """Return four uint64 arrays of 32-bit words for the counter ``(c0, c1, c2, c3)``.

    Args:
        key: Two 32-bit words.
        c0: 32-bit counter word; the four broadcast together.
        c1: As ``c0``.
        c2: As ``c0``.
        c3: As ``c0``.

    >>> [hex(int(word)) for word in philox((0, 0), 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.asarray(c, dtype=np.uint64) for c in (c0, c1, c2, c3)))
    for step in range(10):
        k0 = np.uint64((key[0] + step * WEYL[0]) & 0xFFFFFFFF)
        k1 = np.uint64((key[1] + step * WEYL[1]) & 0xFFFFFFFF)
        p0, p1 = MULTIPLIERS[0] * x0, MULTIPLIERS[1] * x2
        x0, x1, x2, x3 = (p1 >> _SHIFT) ^ x1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ x3 ^ k1, p0 & _LOW
    return x0, x1, x2, x3


class Words:
    """First words of philox4x32-10 for counters that differ only in ``c2``, at less than half of the cost.

    The first round and half of the second do not depend on ``c2`` and are computed once. Half of the last two rounds
    does not affect the first word. The bits equal those of ``philox``; the tests compare them.
    """

    def __init__(self, key: tuple[int, int], c0: Words64, c1: Words64, c3: int) -> None:
        """Compute the part that depends on these counter words only; ``c0`` and ``c1`` are uint64 of one shape."""
        self._keys = [
            (np.uint64((key[0] + i * WEYL[0]) & 0xFFFFFFFF), np.uint64((key[1] + i * WEYL[1]) & 0xFFFFFFFF))
            for i in range(10)
        ]
        product = MULTIPLIERS[0] * c0
        self._first = c1 ^ self._keys[0][0]
        self._x3 = product & _LOW
        product = MULTIPLIERS[1] * ((product >> _SHIFT) ^ np.uint64(c3) ^ self._keys[0][1])
        self._second = (product >> _SHIFT) ^ self._keys[1][0]
        self._x1 = product & _LOW

    def at(self, c2: Words64) -> Words64:
        """Return the first word at counter word ``c2``, a new uint64 array of its shape."""
        keys, p1 = self._keys, MULTIPLIERS[1] * c2
        p0 = MULTIPLIERS[0] * ((p1 >> _SHIFT) ^ self._first)
        p1 &= _LOW
        p1 ^= self._second
        x0, x1, x2, x3 = p1, self._x1, p0 >> _SHIFT, p0
        x2 ^= self._x3
        x2 ^= keys[1][1]
        x3 &= _LOW
        for k0, k1 in keys[2:9]:
            p0, p1 = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
            np.right_shift(p1, _SHIFT, out=x0)
            x0 ^= x1
            x0 ^= k0
            np.right_shift(p0, _SHIFT, out=x2)
            x2 ^= x3
            x2 ^= k1
            p0 &= _LOW
            p1 &= _LOW
            x1, x3 = p1, p0
        x2 *= MULTIPLIERS[1]
        x2 >>= _SHIFT
        x2 ^= x1
        x2 ^= keys[9][0]
        return x2


def split_seed(seed: int) -> tuple[int, int]:
    """Return the key of a seed: its low and high 32 bits.

    Raises:
        ValueError: The seed is negative or needs more than 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"a seed is between 0 and 2^64 - 1, not {seed}")
    return seed & 0xFFFFFFFF, seed >> 32


def permutation(seed: int, epoch: int, size: int, *, domain: int) -> NDArray[np.int64]:
    """Return a uniformly random order of ``range(size)``: the indices sorted by their philox words.

    Args:
        seed: 64-bit seed.
        epoch: Number of the order.
        size: Length, below 2^31.
        domain: A constant for each use, so that two uses of one seed are independent.
    """
    keys = np.empty(size, np.uint64)
    for start in range(0, size, _PART):
        index = np.arange(start, min(start + _PART, size), dtype=np.uint64)
        word = philox(split_seed(seed), index, epoch & 0xFFFFFFFF, epoch >> 32, domain)[0]
        # The index in the low bits makes keys unique. After sorting, these bits are the order: no second array is needed.
        keys[start : start + _PART] = (word << _SHIFT) | index
    keys.sort()
    keys &= _LOW
    return keys.view(np.int64)


def derive_seed(seed: int, *path: Any) -> int:
    """Return a 63-bit seed for a named part of the work, such as ``derive_seed(0, "init", 3)``.

    It hashes the whole path instead of adding numbers: ``(0, 1)`` and ``(1, 0)`` give unrelated seeds.

    >>> derive_seed(0, "order", 1) == derive_seed(1, "order", 0)
    False
    """
    import hashlib

    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
