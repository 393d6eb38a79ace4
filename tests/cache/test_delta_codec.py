"""Folding: what the document says, on numbers small enough to fold by hand, and back for all others."""

from __future__ import annotations

import hypothesis.extra.numpy as hn
import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from bancache.cache.delta_codec import Codes, fold, unfold


def test_eight_codes_are_folded_as_by_hand() -> None:
    """View 0 has 0 to 8 bits; where it has 128 or more, both count down from 255."""
    reference = np.array([[5, 255, 9, 7, 0, 0, 2, 200]], np.uint8)  # bits 3 8 4 3 0 0 2 8
    codes = np.array([[5, 254, 8, 20, 0, 3, 3, 201]], np.uint8)
    # 5: 0. 255, 254: 0, 1, more than twice 0: 1. 9, 8: one less: 1. 7, 20: more than twice 7: 20.
    # 0, 0: 0. 0, 3: 3. 2, 3: one more: 2. 200, 201: 55, 54: one less: 1.
    in_order = [0, 3, 2, 0, 20, 1, 1, 1]  # of bit length 0 0 2 3 3 4 8 8
    planes = [sum((value >> bit & 1) << place for place, value in enumerate(in_order)) for bit in range(8)]
    assert planes == [0b11100010, 0b00000110, 0b00010000, 0, 0b00010000, 0, 0, 0]
    folded = fold(codes, reference)
    assert folded.tolist() == [planes]
    np.testing.assert_array_equal(unfold(folded, reference), codes)


def test_what_does_not_fill_a_plane_follows_as_it_is() -> None:
    """Nine int16 of one class each: eight in sixteen planes of a byte, the last in its own two bytes."""
    codes = np.array([[0], [0], [0], [0], [0], [0], [0], [600], [599]], np.int16)
    folded = fold(codes, np.zeros_like(codes))
    raw = folded.reshape(-1).view(np.uint8).tolist()
    # 600 = 0b10_01011000, in the eighth value of each plane; 599 = 2 · 256 + 87.
    assert raw == [0, 0, 0, 128, 128, 0, 128, 0, 0, 128, 0, 0, 0, 0, 0, 0, 87, 2]


def test_every_pair_of_bytes_folds_to_another_byte_than_its_neighbors() -> None:
    """For each code of view 0, all 256 codes become all 256 numbers: nothing is lost and nothing is wasted."""
    codes = np.arange(256, dtype=np.uint8)
    for first in range(256):
        reference = np.full_like(codes, first)
        folded = fold(codes[None], reference[None])
        np.testing.assert_array_equal(unfold(folded, reference[None]), codes[None])
        bits = np.unpackbits(folded.reshape(8, 32), axis=1, bitorder="little")
        assert sorted((bits * (1 << np.arange(8))[:, None]).sum(axis=0).tolist()) == list(range(256))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    pair=st.tuples(st.sampled_from(["uint8", "int16"]), st.integers(1, 40), st.integers(1, 300)).flatmap(
        lambda drawn: st.tuples(*[hn.arrays(drawn[0], drawn[1:], elements=None)] * 2)
    )
)
def test_any_codes_come_back_whatever_they_are_relative_to(pair: tuple[Codes, Codes]) -> None:
    codes, reference = pair
    folded = fold(codes, reference)
    assert (folded.dtype, folded.shape) == (codes.dtype, codes.shape)
    np.testing.assert_array_equal(unfold(folded, reference), codes)


def test_equal_codes_fold_to_nothing() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (100, 30)).astype(np.uint8)
    assert not fold(codes, codes).any()
