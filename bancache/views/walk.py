"""The view that each sample shows in a view index, by numba: the numbers of ``ViewSpace.view_ids``, in a tenth of its time.

Integers alone, so there is no rounding to agree on. A block of samples goes through each round of the cipher together,
so that no multiplication waits for the one before it, and the compiler makes vectors of the loop over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.philox import MULTIPLIERS, WEYL, split_seed
from bancache.system.numba import loop
from bancache.views.space import DOMAIN, ROUNDS, ViewSpace

_BLOCK = 512  # eight arrays of so many stay in a core's first cache from round to round
_M0, _M1 = MULTIPLIERS
_W0, _W1 = (np.uint64(word) for word in WEYL)
_DOMAIN, _LOW, _HALF, _STEP = np.uint64(DOMAIN), np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(24)


def view_ids(space: ViewSpace, samples: NDArray[np.int64], view_index: int) -> NDArray[np.int64]:
    """Return the view of each sample in one view index, int64 (N,).

    Args:
        space: The views.
        samples: int64 (N,), positions in the data set.
        view_index: In ``range(space.size)``.

    Raises:
        UsageError: There is no such view index.
    """
    space.require_view_index(view_index)
    out = np.empty(len(samples), np.uint64)
    numbers = (
        np.uint64(number) for number in (view_index, space.size, space.half_bits, *split_seed(space.seed))
    )
    _walk(samples.view(np.uint64), *numbers, np.empty((4, _BLOCK), np.uint64), out)
    return out.view(np.int64)


@loop()
def _walk(
    samples: Any, view_index: Any, size: Any, bits: Any, key0: Any, key1: Any, fixed: Any, out: Any
) -> None:
    mask = (np.uint64(1) << bits) - np.uint64(1)
    halves, place = np.empty((3, fixed.shape[1]), np.uint64), np.empty(fixed.shape[1], np.int64)
    for begin in range(0, samples.size, place.size):
        live = min(place.size, samples.size - begin)
        numbers = out[begin : begin + live]
        left, right, word = halves[0], halves[1], halves[2]
        _prepare(samples[begin : begin + live], key0, key1, fixed)
        right[:live] = 0
        _words(right[:live], _LOW, key0, key1, fixed, word)
        for i in range(live):
            turned = view_index + ((word[i] * size) >> _HALF)
            numbers[i] = turned - size if turned >= size else turned
            left[i], right[i], place[i] = numbers[i] >> bits, numbers[i] & mask, i
        while live and size > np.uint64(2):
            for step in range(ROUNDS):
                _words(right[:live], np.uint64(step) << _STEP, key0, key1, fixed, word)
                for i in range(live):
                    word[i] = (word[i] & mask) ^ left[i]
                left, right, word = right, word, left
            # Who is back inside the lattice has arrived; the others move up and go round again.
            kept = 0
            for i in range(live):
                number = (left[i] << bits) | right[i]
                if number < size:
                    numbers[place[i]] = number
                    continue
                left[kept], right[kept], place[kept] = left[i], right[i], place[i]
                for part in range(4):
                    fixed[part, kept] = fixed[part, i]
                kept += 1
            live = kept


@loop()
def _prepare(samples: Any, key0: Any, key1: Any, fixed: Any) -> None:
    """Compute what does not depend on the third counter word, as ``philox.Words`` does."""
    for i in range(samples.size):
        product = _M0 * (samples[i] & _LOW)
        fixed[0, i] = (samples[i] >> _HALF) ^ key0
        fixed[1, i] = product & _LOW
        product = _M1 * ((product >> _HALF) ^ _DOMAIN ^ key1)
        fixed[2, i] = (product >> _HALF) ^ ((key0 + _W0) & _LOW)
        fixed[3, i] = product & _LOW


@loop()
def _words(c2: Any, tweak: Any, key0: Any, key1: Any, fixed: Any, out: Any) -> None:
    """Compute the first words of philox4x32-10, as ``philox.Words.at`` does."""
    # Slices tell the compiler that no index is negative, so that it makes vectors of the loop.
    count = c2.size
    given0, given1, given2, given3 = fixed[0, :count], fixed[1, :count], fixed[2, :count], fixed[3, :count]
    words = out[:count]
    for i in range(count):
        p1 = _M1 * (c2[i] | tweak)
        p0 = _M0 * ((p1 >> _HALF) ^ given0[i])
        x0, x1 = (p1 & _LOW) ^ given2[i], given3[i]
        x2, x3 = (p0 >> _HALF) ^ given1[i] ^ ((key1 + _W1) & _LOW), p0 & _LOW
        for step in range(2, 9):
            p0, p1 = _M0 * x0, _M1 * x2
            x0 = (p1 >> _HALF) ^ x1 ^ ((key0 + np.uint64(step) * _W0) & _LOW)
            x2 = (p0 >> _HALF) ^ x3 ^ ((key1 + np.uint64(step) * _W1) & _LOW)
            x1, x3 = p1 & _LOW, p0 & _LOW
        words[i] = ((_M1 * x2) >> _HALF) ^ x1 ^ ((key0 + np.uint64(9) * _W0) & _LOW)
