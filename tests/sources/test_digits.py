"""The digits are the same everywhere, forever."""

from __future__ import annotations

import numpy as np

from bancache.sources import open_source


def test_fingerprints_are_frozen() -> None:
    """If these change, no cache or checkpoint of the demo fits its data any more."""
    assert (
        open_source("digits", "train").fingerprint
        == "ee1d2405916278215e1c8c785a2a77fe829f10462537ed51e0682abf24884d94"
    )
    assert (
        open_source("digits", "test").fingerprint
        == "8f03a4065f776137e7de3a03cf4daa09b36da20aa52ab29ba2badb1963a97924"
    )


def test_split_and_values() -> None:
    """Every fifth of the 1,797 images is for testing, 0..16 became 0..255, ten classes are in both."""
    from sklearn.datasets import load_digits

    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (train.images.shape, test.images.shape) == ((1438, 8, 8, 1), (359, 8, 8, 1))
    assert train.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    original = load_digits()
    assert np.array_equal(test.labels, original.target[4::5])
    levels = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert np.array_equal(test.images[..., 0], np.array(levels)[original.images[4::5].astype(int)])
    assert set(train.labels) == set(test.labels) == set(range(10))
