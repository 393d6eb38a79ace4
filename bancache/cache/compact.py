"""Folding: a view's codes as what they add to the same sample's codes in slot 0, exactly invertible.

A teacher's answers to two views of an image are alike. Ordered by falling code in slot 0, the differences of a
sample are large first and near zero after; written as bit planes, the planes of large bits are runs of zeros, and
a class can cost less than the one bit that an entropy coder of whole symbols spends at least.

    order  = the classes by falling code in slot 0, equal codes by rising class
    folded = bit planes of zigzag((codes − codes in slot 0) mod 2^w, in that order),   w = 8 or 16
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]

# Rows at a time, so that what is gathered stays in a processor's cache.
_ROWS = 1024
# The three steps that transpose eight bytes as a matrix of bits (Warren, Hacker's Delight, section 7-3).
_STEPS = ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))


def ranks(reference: Codes) -> Codes:
    """Return each class's place in the order of its row, 0 for the largest code.

    Args:
        reference: Codes in slot 0, uint8 or int16 (rows, classes).

    Returns:
        The smallest unsigned type that holds ``classes``, (rows, classes).
    """
    order = _order(reference)
    classes = reference.shape[1]
    places = np.arange(classes, dtype=np.min_scalar_type(max(classes - 1, 0)))
    found = np.empty(reference.shape, places.dtype)
    np.put_along_axis(found, order, places[np.newaxis], axis=1)
    return found


def fold(codes: Codes, reference: Codes) -> Codes:
    """Return the codes of some samples in one slot relative to theirs in slot 0: same bytes, dtype and shape.

    Args:
        codes: uint8 or int16 (rows, classes).
        reference: The same samples' in slot 0.
    """
    width = 8 * codes.itemsize
    # Differences wrap around, and come back the same way.
    delta = np.take_along_axis(codes - reference, _order(reference), axis=1)
    signed = delta.view(f"i{codes.itemsize}")
    return _to_planes((signed << 1) ^ (signed >> (width - 1))).view(codes.dtype).reshape(codes.shape)


def unfold(folded: Codes, reference: Codes, places: Codes) -> Codes:
    """Return what ``fold`` was given.

    Args:
        folded: uint8 or int16 (rows, classes).
        reference: The same samples' codes in slot 0.
        places: Their ``ranks``.
    """
    zigzag = _from_planes(np.ascontiguousarray(folded))
    delta = ((zigzag >> 1) ^ (-(zigzag & 1))).view(folded.dtype).reshape(folded.shape)
    codes = np.empty_like(folded)
    starts = np.arange(_ROWS)[:, np.newaxis] * folded.shape[1]
    for first in range(0, len(folded), _ROWS):
        rows = slice(first, first + _ROWS)
        where = places[rows] + starts[: len(places[rows])]
        np.take(delta[rows].reshape(-1), where, out=codes[rows], mode="clip")
    codes += reference
    return codes


def _order(reference: Codes) -> NDArray[np.intp]:
    # Bitwise not is the largest value less the code: falling order without leaving the type.
    return np.argsort(~reference, axis=1, kind="stable")


def _to_planes(values: Codes) -> NDArray[np.uint8]:
    """Return the same number of bytes: all lowest bits, eight values a byte, then the next, … ; a rest as it is."""
    size, count = values.itemsize, values.size
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(count, size)
    whole = count - count % 8
    planes = [_transpose(np.ascontiguousarray(raw[:whole, i])).reshape(-1, 8).T.ravel() for i in range(size)]
    return np.concatenate([*planes, raw[whole:].reshape(-1)])


def _from_planes(stored: Codes) -> Codes:
    """Return the unsigned values that ``_to_planes`` was given, (values,)."""
    size, count = stored.itemsize, stored.size
    raw = stored.reshape(-1).view(np.uint8)
    whole = count - count % 8
    values = np.empty((count, size), np.uint8)
    for i in range(size):
        plane = raw[i * whole : (i + 1) * whole].reshape(8, -1)
        values[:whole, i] = _transpose(np.ascontiguousarray(plane.T).reshape(-1))
    values[whole:] = raw[size * whole :].reshape(-1, size)
    return values.view(f"<u{size}").reshape(-1)


def _transpose(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every eight bytes as their transposed matrix of bits: byte i then has the i-th bit of each."""
    words = octets.view("<u8").copy()
    for shift, mask in _STEPS:
        moved = (words ^ (words >> np.uint64(shift))) & np.uint64(mask)
        words ^= moved ^ (moved << np.uint64(shift))
    return words.view(np.uint8)
