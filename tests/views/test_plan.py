"""The order of an epoch."""

import numpy as np

from bancache.views import Plan


def test_an_epoch_visits_every_sample_once() -> None:
    plan = Plan(samples=1000, num_views=3, seed=1)
    assert sorted(plan.order(4).tolist()) == list(range(1000))
    assert not np.array_equal(plan.order(4), plan.order(5))
    assert not np.array_equal(plan.order(4), Plan(samples=1000, num_views=3, seed=2).order(4))


def test_views_come_in_turn() -> None:
    assert [Plan(samples=4, num_views=3, seed=0).view_index(e) for e in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_orders_are_frozen() -> None:
    """Training runs that were killed go on by these numbers."""
    assert Plan(samples=10, num_views=1, seed=0).order(0).tolist() == [1, 5, 9, 0, 7, 4, 6, 3, 2, 8]
    assert Plan(samples=10, num_views=1, seed=2**40).order(2**33).tolist() == [5, 7, 6, 4, 3, 0, 2, 1, 9, 8]


def test_batches_are_of_one_size() -> None:
    plan = Plan(samples=1000, num_views=1, seed=0)
    assert plan.steps(128) == 7
    assert plan.steps(2000) == 1
