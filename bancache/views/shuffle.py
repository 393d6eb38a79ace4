"""A keyed random order of ``range(size)`` that is computed place by place, in O(1).

One philox word of the key rotates the place, which makes the result exactly uniform. A Feistel network follows, whose
round function is one word of philox4x32-10 at ``(key, half, round)``. It is repeated until the number is below ``size``
(cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The orders are frozen: caches on disk
depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bancache.philox import Words, split_seed

# With four rounds the joint frequencies of two views are measurably uneven on small lattices, with eight they are not.
# Twelve, on at least 2 x 3 bits, leave a margin, since the order can never change (docs/log.md, benchmarks/view_order.py).
ROUNDS = 12
_HALF_BITS = 3
_PART = 1 << 14  # places at a time: their random words stay in a core's cache
# So many numbers cost no more than a few: calls of numpy take the time. Walks that are left end in one go.
_TABLE = 1 << 12


def shuffled(
    seed: int, keys: NDArray[np.uint64], places: NDArray[np.uint64], size: int, *, domain: int
) -> NDArray[np.int64]:
    """Return the numbers at ``places`` in the orders of ``range(size)`` that ``keys`` have, int64 (B,).

    For each key this is a bijection of ``range(size)``. ``keys`` and ``places`` are uint64 (B,), the places below
    ``size``; ``domain`` separates the uses of one seed.
    """
    order = _Order(seed, size, domain)
    found = np.empty(places.shape, np.uint64)
    for part in _parts(places.size):
        words = order.words(keys[part])
        rotation = (words.at(np.full(keys[part].shape, 0xFFFFFFFF, np.uint64)) * order.size) >> np.uint64(32)
        found[part] = (places[part] + rotation) % order.size
        if size > 2:  # for one or two places the rotation alone is a uniformly random order
            found[part] = order.encipher(words, found[part])
    outside = np.flatnonzero(found >= order.size)
    while outside.size * order.domain > _TABLE:
        for part in _parts(outside.size):
            some = outside[part]
            found[some] = order.encipher(order.words(keys[some]), found[some])
        outside = outside[found[outside] >= order.size]
    if outside.size:
        found[outside] = order.walked(keys[outside], found[outside])
    return found.view(np.int64)


class _Order:
    def __init__(self, seed: int, size: int, domain: int) -> None:
        self.size = np.uint64(size)
        self._half = max(_HALF_BITS, ((size - 1).bit_length() + 1) // 2)
        self.domain = 1 << 2 * self._half
        self._key, self._use = split_seed(seed), domain

    def words(self, keys: NDArray[np.uint64]) -> Words:
        return Words(self._key, keys & np.uint64(0xFFFFFFFF), keys >> np.uint64(32), self._use)

    def encipher(self, words: Words, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Apply the Feistel network once to numbers of ``2 · half`` bits."""
        bits, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = value >> bits, value & mask
        for step in range(ROUNDS):
            word = words.at(right | np.uint64(step << 24))
            word &= mask
            word ^= left
            left, right = right, word
        return (left << bits) | right

    def walked(self, keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Walk from each number until it is below ``size``, by a table of all numbers for each key."""
        every = np.tile(np.arange(self.domain, dtype=np.uint64), len(keys))
        after = self.encipher(self.words(np.repeat(keys, self.domain)), every).reshape(len(keys), self.domain)
        row = np.arange(len(keys))
        while (outside := values >= self.size).any():
            values = np.where(outside, after[row, values], values)
        return values


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, count, _PART))
