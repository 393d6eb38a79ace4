"""numba finds the views that numpy finds, for every space, sample and view index."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.loader.epoch_sampler import EpochSampler
from bancache.system import numba as compiled
from bancache.views import Plan, ViewSpace

SPACES = st.builds(
    ViewSpace,
    pad=st.one_of(st.integers(0, 6), st.sampled_from([100, 4096])),
    flip=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=60, deadline=None)
@given(
    SPACES,
    st.data(),
    st.lists(st.integers(0, 2**62), max_size=40),
    st.integers(0, 2**40),
    st.sampled_from([0, 1, 511, 512, 1300]),
)
def test_every_number_is_the_same_with_numba(
    space: ViewSpace, data: st.DataObject, some: list[int], first: int, run: int
) -> None:
    walk = pytest.importorskip("bancache.views.walk", exc_type=ImportError)
    samples = np.concatenate([np.array(some, np.int64), np.arange(first, first + run)])
    view_index = data.draw(st.integers(0, space.size - 1))
    assert np.array_equal(walk.view_ids(space, samples, view_index), space.view_ids(samples, view_index))


def test_all_views_of_a_sample_are_all_views() -> None:
    walk = pytest.importorskip("bancache.views.walk", exc_type=ImportError)
    space, samples = ViewSpace.parse("crop2-flip", seed=9), np.arange(40)
    shown = np.stack([walk.view_ids(space, samples, view_index) for view_index in range(space.size)])
    assert np.array_equal(np.sort(shown, axis=0), np.tile(np.arange(space.size)[:, None], 40))


def test_a_view_that_is_not_there_is_refused() -> None:
    walk = pytest.importorskip("bancache.views.walk", exc_type=ImportError)
    for view_index in (-1, 18):
        with pytest.raises(UsageError, match=f"no view {view_index} among 18 views"):
            walk.view_ids(ViewSpace.parse("crop1-flip"), np.arange(3), view_index)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_long_run_changes_over_in_the_middle_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    walk = pytest.importorskip("bancache.views.walk", exc_type=ImportError)
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 100)
    view_indices, real = [], walk.view_ids

    def told(space: ViewSpace, samples: NDArray[np.int64], view_index: int) -> NDArray[np.int64]:
        view_indices.append(view_index)
        found: NDArray[np.int64] = real(space, samples, view_index)
        return found

    monkeypatch.setattr(walk, "view_ids", told)
    plan, space = Plan(60, 18, 0), ViewSpace.parse("crop1-flip")
    long, usual = (
        EpochSampler(plan, space, 48, ahead=ahead),
        EpochSampler(plan, space, 48, ahead=False, accelerator="none"),
    )
    for epoch in range(6):
        found, expected = long.epoch(epoch), usual.epoch(epoch)
        assert np.array_equal(found.samples, expected.samples)
        assert np.array_equal(found.views, expected.views)
    assert view_indices[:3] == [3, 4, 5]


def test_without_numba_everything_goes_on_and_asking_for_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiled, "WORTH_AFTER_VIEWS", 0)
    plan, space = Plan(60, 18, 0), ViewSpace.parse("crop1-flip")
    assert len(EpochSampler(plan, space, 48, ahead=False).epoch(0).views) == 48
    with pytest.raises(UsageError, match="numba is not installed"):
        EpochSampler(plan, space, 48, ahead=False, accelerator="numba")
