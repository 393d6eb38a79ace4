"""The order of an epoch, and the views that it shows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bancache.errors import UsageError
from bancache.loader.epoch_sampler import EpochSampler
from bancache.loader.lookahead import Lookahead
from bancache.views import ViewSpace


def test_an_epoch_visits_every_sample_once() -> None:
    sampler = EpochSampler(num_samples=1000, num_views=3, seed=1)
    assert sorted(sampler.order(4).tolist()) == list(range(1000))
    assert not np.array_equal(sampler.order(4), sampler.order(5))
    other = EpochSampler(num_samples=1000, num_views=3, seed=2)
    assert not np.array_equal(sampler.order(4), other.order(4))


def test_views_come_in_turn() -> None:
    assert [EpochSampler(4, 3, seed=0).view_index(e) for e in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_orders_are_frozen() -> None:
    """Killed training runs continue by these numbers."""
    assert EpochSampler(10, 1, seed=0).order(0).tolist() == [1, 5, 9, 0, 7, 4, 6, 3, 2, 8]
    assert EpochSampler(10, 1, seed=2**40).order(2**33).tolist() == [5, 7, 6, 4, 3, 0, 2, 1, 9, 8]


def test_batches_are_of_one_size() -> None:
    sampler = EpochSampler(1000, 1, seed=0)
    assert sampler.steps(128) == 7
    assert sampler.steps(2000) == 1
    assert sampler.steps(128, keep_last=True) == 8
    assert EpochSampler(1024, 1, seed=0).steps(128, keep_last=True) == 8


def test_addresses_are_the_first_samples_of_the_order_with_the_views_of_the_epoch() -> None:
    sampler, space = EpochSampler(40, 5, seed=3), ViewSpace.parse("crop1-flip")
    for epoch in (0, 1, 7):
        found = sampler.addresses(epoch, space, 32)
        assert found.samples.tolist() == sampler.order(epoch)[:32].tolist()
        assert found.views.tolist() == space.view_ids(found.samples, epoch % 5).tolist()


@pytest.mark.parametrize(("num_samples", "num_views"), [(0, 1), (1, 0)])
def test_an_epoch_of_nothing_is_refused(num_samples: int, num_views: int) -> None:
    with pytest.raises(UsageError, match=f"{num_samples} samples and {num_views} views"):
        EpochSampler(num_samples, num_views, seed=0)


def test_a_prepared_value_is_computed_once_and_another_number_is_computed_anew() -> None:
    computed: list[int] = []

    class Squares:
        def of(self, number: int) -> int:
            computed.append(number)
            return number * number

    squares = Squares()
    lookahead = Lookahead(squares.of, name="test")
    lookahead.prepare(3)
    lookahead.prepare(4)  # 3 was not taken yet
    assert [lookahead.get(3), lookahead.get(4)] == [9, 16]
    lookahead.prepare(5)
    assert [lookahead.get(6), lookahead.get(5)] == [36, 25]
    assert computed == [3, 4, 5, 6, 5]


def test_blocks_are_read_in_eight_runs_at_a_time_in_an_order_that_is_frozen() -> None:
    sampler, plain = EpochSampler(1030, 2, seed=7, block=16), EpochSampler(1030, 2, seed=7)
    order = sampler.order(3)
    assert sorted(order.tolist()) == list(range(1030))
    assert order.tolist() == sampler.order(3).tolist() != sampler.order(4).tolist()
    even = EpochSampler(1024, 2, seed=7, block=16).order(3).reshape(8, 8 * 16)
    assert [len(set((group // 16).tolist())) for group in even] == [8] * 8
    assert (np.abs(np.diff(even)) == 1).mean() < 0.1  # inside of a group, runs are mixed
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "d48c4231303aa681"
    assert EpochSampler(1030, 2, seed=7, block=0).order(3).tolist() == plain.order(3).tolist()
    # One block is the whole set, in the order that it has without blocks.
    assert EpochSampler(1030, 2, seed=7, block=1030).order(3).tolist() == plain.order(3).tolist()


def test_every_place_of_an_epoch_shows_every_sample_equally_often() -> None:
    """Over many epochs: first places, of 24 samples in blocks of 2; four standard errors."""
    epochs = 960
    first = [int(EpochSampler(24, 1, seed=1, block=2).order(epoch)[0]) for epoch in range(epochs)]
    counts = np.bincount(first, minlength=24)
    assert abs(counts - epochs / 24).max() < 4.5 * (epochs / 24) ** 0.5


def test_blocks_of_negative_size_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        EpochSampler(10, 1, seed=0, block=-1)
    assert "--shuffle-block" in caught.value.hint
