"""Which view a view is mixed with, and how much of each is seen."""

from __future__ import annotations

import decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import betainc  # type: ignore[import-untyped]
from scipy.stats import chisquare, ks_2samp  # type: ignore[import-untyped]

from bancache.loader.labels import own_share
from bancache.views import ViewSpace, boxes, mixing
from bancache.views.mixing import partners
from bancache.views.record import LAMBDA, WHOLE
from bancache.views.space import Sizes

ENOUGH = 0.001  # the probability that two equal distributions look as different


def drawn(name: str, count: int, *, num_samples: int = 50) -> dict[str, NDArray[np.int64]]:
    """Return what mixing draws for views of samples at many view indices, int64 (count,) each."""
    space = ViewSpace.parse(name, seed=1)
    sizes = Sizes(np.full(num_samples, 32), np.full(num_samples, 32))
    records = space.records(np.arange(count) % num_samples, np.arange(count) // num_samples, sizes)
    top, left, height, width = records[:, space.layout.cut].T.astype(np.int64)
    return {
        "share": records[:, space.layout.share].astype(np.int64),
        "label": own_share(torch.from_numpy(records), space.layout).numpy(),
        "top": top,
        "left": left,
        "height": height,
        "width": width,
    }


# Partners.


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 64, 97, 1000])
def test_partners_are_the_samples_in_a_random_order_and_nobody_is_his_own(count: int) -> None:
    """A sample that the order leaves in its place has the next one; all others are partners of one sample each."""
    samples = np.arange(count)
    for view_index in range(20):
        found = partners(9, samples, np.full(count, view_index), count)
        assert (found != samples).all()
        assert found.min() >= 0
        assert found.max() < count
        chosen = np.bincount(found, minlength=count)
        moved = [(partner - 1) % count for partner in np.flatnonzero(chosen > 1)]
        assert set(chosen.tolist()) <= {0, 1, 2}
        assert (found[moved] == (np.array(moved, np.int64) + 1) % count).all()
        rest = np.delete(found, moved)
        assert len(set(rest.tolist())) == len(rest)


def test_the_last_sample_has_the_first_one_where_the_order_leaves_it_in_its_place() -> None:
    """Of an epoch, whose partners are found at once, and of a few samples."""
    last, whole = 39, np.arange(40)
    for view_index in range(400):
        [alone] = partners(9, whole[-1:], np.array([view_index]), 40)
        [*_, together] = partners(9, whole, np.full(40, view_index), 40)
        assert alone == together < last


def test_two_samples_are_partners_of_each_other_and_one_is_alone() -> None:
    indices = np.arange(10)
    for sample in (0, 1):
        assert (partners(0, np.full(10, sample), indices, 2) == 1 - sample).all()
    assert (partners(0, np.zeros(10, np.int64), indices, 1) == 0).all()


def test_partners_are_frozen() -> None:
    """Caches of mixed views depend on these numbers."""
    found = partners(0, np.arange(10), np.zeros(10, np.int64), 10)
    large = partners(2**63 + 5, np.array([0, 1, 1_281_166]), np.array([0, 299, 2**31 - 1]), 1_281_167)
    assert found.tolist() == [1, 2, 6, 9, 5, 6, 3, 8, 2, 8]
    assert large.tolist() == [1260582, 425462, 802652]


@pytest.mark.parametrize("count", [50, 1000])
def test_they_are_the_same_from_one_call_and_from_many(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.arange(count)
    for view_index in (0, 7):
        indices = np.full(count, view_index)
        together = partners(3, samples, indices, count)
        few = np.concatenate(
            [partners(3, samples[i : i + 9], indices[i : i + 9], count) for i in range(0, count, 9)]
        )
        np.testing.assert_array_equal(few, together)
        np.testing.assert_array_equal(partners(3, samples[::-1], indices, count), together[::-1])
        monkeypatch.setattr(mixing, "_MOST_KEPT", 1)
        np.testing.assert_array_equal(partners(3, samples, indices, count), together)
        monkeypatch.undo()
    both = partners(3, np.tile(samples, 2), np.repeat([0, 7], count), count)
    np.testing.assert_array_equal(both[count:], together)


def test_every_other_sample_is_equally_likely_but_for_the_next() -> None:
    """The next one stands in for the sample itself, so it comes twice as often."""
    count = 6000
    found = np.bincount(partners(4, np.full(count, 2), np.arange(count), 6), minlength=6)
    assert found[2] == 0
    assert chisquare(np.delete(found, 2), np.array([1, 1, 2, 1, 1]) * count / 6).pvalue > ENOUGH


@pytest.mark.parametrize("name", ["rrc-flip-trivial-erase0.5-mixup0.8", "crop1-flip-cutmix1.0"])
def test_the_partner_is_shown_as_its_own_view_at_the_same_index(name: str) -> None:
    space, count = ViewSpace.parse(name, seed=5), 60
    each = np.arange(count, dtype=np.int64)
    sizes = (
        Sizes(np.full(count, 20), np.full(count, 20)) if space.needs_one_size else Sizes(1 + each, 70 - each)
    )
    records = space.records(each, np.full(count, 4), sizes)
    partner = records[:, space.layout.partner]
    np.testing.assert_array_equal(records[:, space.layout.partners], records[partner, : space.layout.own])


def test_one_picture_alone_is_mixed_with_itself() -> None:
    space = ViewSpace.parse("rrc-flip-mixup0.8-cutmix1.0")
    (record,) = space.records(
        np.zeros(1, np.int64), np.zeros(1, np.int64), Sizes(np.array([40]), np.array([30]))
    )
    assert record[space.layout.partner] == 0
    assert record[space.layout.partners].tolist() == record[: space.layout.own].tolist()


# Shares.


@pytest.mark.parametrize("alpha", ["0.01", "0.2", "0.8", "1", "1.5", "20", "99.5", "100"])
def test_shares_are_quantiles_of_beta_to_the_last_bit(alpha: str) -> None:
    """A share is the nearest 256th. scipy's function is precise to some 1e-12."""
    found = mixing._thresholds(Fraction(alpha)).astype(np.float64) / 2**32
    exact = betainc(float(alpha), float(alpha), (np.arange(LAMBDA) + 0.5) / LAMBDA)
    assert len(found) == LAMBDA
    assert np.abs(found - exact).max() < 2**-32


def test_tables_do_not_depend_on_the_settings_of_decimal() -> None:
    """A program may have set a precision of its own, and the tables must not follow it."""
    shares, aspects = mixing._thresholds(Fraction("0.8")), boxes._aspects(Fraction(4, 3))
    with decimal.localcontext(decimal.Context(prec=4, rounding=decimal.ROUND_UP)):
        np.testing.assert_array_equal(mixing._thresholds.__wrapped__(Fraction("0.8")), shares)
        np.testing.assert_array_equal(boxes._aspects.__wrapped__(Fraction(4, 3)), aspects)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 5.0])
def test_lambda_is_distributed_as_numpys_beta(alpha: float) -> None:
    found = drawn(f"rrc-mixup{alpha}", 20_000)
    expected = np.random.default_rng(0).beta(alpha, alpha, 20_000)
    assert ks_2samp(found["share"], np.rint(expected * LAMBDA)).pvalue > ENOUGH
    assert not found["height"].any()
    np.testing.assert_array_equal(found["label"], found["share"] / LAMBDA)


def test_cuts_are_inside_the_view_and_leave_the_share() -> None:
    """A cut about its center is as large as the partner's share, before the view's borders clip it."""
    found = drawn("rrc-cutmix1.0", 20_000)
    bottom, right = found["top"] + found["height"], found["left"] + found["width"]
    for start, side, stop in (
        (found["top"], found["height"], bottom),
        (found["left"], found["width"], right),
    ):
        assert (start >= 0).all()
        assert (stop <= WHOLE).all()
        free = (start > 0) & (stop < WHOLE)
        exact = WHOLE * np.sqrt(1 - found["share"] / LAMBDA)
        assert (np.abs(side - exact)[free] < 1).all()
        assert (side <= exact).all()
    area = found["height"] * found["width"]
    assert ((found["height"] == 0) == (found["width"] == 0)).all()
    assert (found["share"][area == 0] == LAMBDA).all()
    np.testing.assert_array_equal(found["label"], (1 - area / WHOLE**2).astype(np.float32))


def test_shares_of_labels_and_cuts_are_distributed_as_timms() -> None:
    """timm rounds to pixels, so its picture is a large one."""
    mixup = pytest.importorskip("timm.data.mixup", reason="timm is an extra")
    found, count, side = drawn("rrc-mixup0.8-cutmix1.0", 20_000), 4000, 4096
    np.random.seed(0)  # noqa: NPY002 (timm draws from numpy's own generator)
    theirs = mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, num_classes=9)
    lam, cuts = theirs._params_per_elem(count)
    tops, heights = np.zeros((2, count))
    for index in np.flatnonzero(cuts):
        (top, bottom, _, _), lam[index] = mixup.cutmix_bbox_and_lam((1, side, side), lam[index])
        tops[index], heights[index] = top, bottom - top
    is_cut = found["height"] > 0
    assert abs(is_cut.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(is_cut)) + 0.01  # a cut may be empty
    assert ks_2samp(found["label"][is_cut], lam[cuts]).pvalue > ENOUGH
    assert ks_2samp(found["label"][~is_cut], np.rint(lam[~cuts] * LAMBDA) / LAMBDA).pvalue > ENOUGH
    assert ks_2samp(found["top"][is_cut] / WHOLE, tops[cuts] / side).pvalue > ENOUGH
    assert ks_2samp(found["height"][is_cut] / WHOLE, heights[cuts] / side).pvalue > ENOUGH
