"""Folding: a view's codes relative to the same sample's codes in view 0, lossless, and small when compressed.

A teacher's outputs for two views of an image are alike. So a code is stored as its distance to the code in view 0;
distances are sorted by the magnitude of that code, and written as bit planes, of which the high ones are runs of zeros. A
class can then cost less than one bit.

    z      = c if c > 2r, else 2d for d = c − r ≥ 0, −2d − 1 for d < 0      where r < half of all codes there can be
    folded = bit planes of z, in the order of rising bit length of r; above half, r and c count from the top
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]

# Three steps transpose eight bytes as a matrix of bits (Warren, Hacker's Delight, section 7-3).
_STEPS = ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
# The exponent of a whole number is its bit length, and 0 for 0.
_LENGTHS = np.frexp(np.arange(1 << 16, dtype=np.float32))[1].astype(np.uint8)


def fold(codes: Codes, reference: Codes) -> Codes:
    """Return codes, uint8 or int16 (rows, classes), relative to the same samples' codes in view 0: same dtype and shape."""
    low, above = _mirrored(reference)
    code = _unsigned(codes) ^ above
    delta: Codes = (code - low).view(f"i{codes.itemsize}")
    zigzag = ((delta << 1) ^ (delta >> (8 * codes.itemsize - 1))).view(code.dtype)
    values = np.where(code > low << 1, code, zigzag)
    return _to_planes(values[_order(reference)]).view(codes.dtype).reshape(codes.shape)


def unfold(folded: Codes, reference: Codes) -> Codes:
    """Return the codes that ``fold`` was given."""
    low, above = _mirrored(reference)
    values = np.empty_like(low)
    values[_order(reference)] = _from_planes(np.ascontiguousarray(folded))
    near = low + ((values >> 1) ^ (0 - (values & 1)))
    code = np.where(values > low << 1, values, near) ^ above
    return code.view(folded.dtype).reshape(folded.shape)


def _unsigned(codes: Codes) -> Codes:
    return np.ascontiguousarray(codes).reshape(-1).view(f"<u{codes.itemsize}")


def _mirrored(reference: Codes) -> tuple[Codes, Codes]:
    """Return the codes of view 0, counted from the nearer end of their range, and a mask: all bits set where that is the top."""
    codes = _unsigned(reference)
    above = 0 - (codes >> (8 * codes.itemsize - 1))
    return codes ^ above, above


def _order(reference: Codes) -> NDArray[np.intp]:
    """Return the stable order of a shard's codes by their bit length in view 0."""
    return np.argsort(_LENGTHS[_unsigned(reference)], kind="stable")


def _to_planes(values: Codes) -> NDArray[np.uint8]:
    """Return as many bytes: all lowest bits, eight values a byte, then all next bits, …; a rest below eight values as it is."""
    size, count = values.itemsize, values.size
    raw = values.view(np.uint8).reshape(count, size)
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
    """Transpose every eight bytes as a matrix of bits: byte i then has bit i of each."""
    words = octets.view("<u8").copy()
    for shift, mask in _STEPS:
        moved = (words ^ (words >> np.uint64(shift))) & np.uint64(mask)
        words ^= moved ^ (moved << np.uint64(shift))
    return words.view(np.uint8)
