"""Folding: what the document says, on numbers small enough to fold by hand, and back for all others."""

from __future__ import annotations

import hypothesis.extra.numpy as hn
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bancache.cache.compact import Codes, fold, ranks, unfold


def test_classes_are_ordered_by_falling_code_and_equal_ones_by_number() -> None:
    reference = np.array([[3, 255, 0, 3], [0, 0, 0, 0], [1, 2, 3, 4]], np.uint8)
    assert ranks(reference).tolist() == [[1, 0, 3, 2], [0, 1, 2, 3], [3, 2, 1, 0]]
    assert ranks(np.array([[-5, 7, -32768, 32767]], np.int16)).tolist() == [[2, 1, 3, 0]]


@pytest.mark.parametrize(
    ("classes", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65_536, "u2"), (65_537, "u4")]
)
def test_places_take_the_fewest_bytes_there_can_be(classes: int, dtype: str) -> None:
    places = ranks(np.zeros((1, classes), np.uint8))
    assert places.dtype == np.dtype(dtype)
    assert places[0, -1] == classes - 1


def test_eight_codes_are_folded_as_by_hand() -> None:
    """In the order of slot 0 the differences are 0 −1 1 0 −2 0 0 0, zigzag 0 1 2 0 3 0 0 0: two planes have bits."""
    reference = np.array([[5, 255, 9, 7, 0, 0, 2, 1]], np.uint8)  # order 1 2 3 0 6 7 4 5
    codes = np.array([[5, 255, 8, 8, 0, 0, 0, 1]], np.uint8)
    lowest, next_ = 0b00010010, 0b00010100  # zigzag 1 and 3; 2 and 3, from the right
    folded = fold(codes, reference)
    assert folded.tolist() == [[lowest, next_, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(unfold(folded, reference, ranks(reference)), codes)


def test_what_does_not_fill_a_plane_follows_as_it_is() -> None:
    """Nine int16 of one class each: eight in sixteen planes of a byte, the last in its own two bytes."""
    codes = np.array([[0], [0], [0], [0], [0], [0], [0], [300], [-300]], np.int16)
    folded = fold(codes, np.zeros_like(codes))
    raw = folded.reshape(-1).view(np.uint8).tolist()
    # zigzag of 300 is 600 = 0b10_01011000, in the eighth value of each plane; of −300 it is 599 = 2 · 256 + 87.
    assert raw == [0, 0, 0, 128, 128, 0, 128, 0, 0, 128, 0, 0, 0, 0, 0, 0, 87, 2]


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
    np.testing.assert_array_equal(unfold(folded, reference, ranks(reference)), codes)


def test_more_rows_than_are_unfolded_at_a_time_come_back() -> None:
    rng = np.random.default_rng(0)
    codes, reference = rng.integers(0, 1024, (2, 2500, 7)).astype(np.int16)
    np.testing.assert_array_equal(unfold(fold(codes, reference), reference, ranks(reference)), codes)


def test_equal_codes_fold_to_nothing() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (100, 30)).astype(np.uint8)
    assert not fold(codes, codes).any()
