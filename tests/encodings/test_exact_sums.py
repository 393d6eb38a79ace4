"""Sums of root codes' powers are exact in float64, so their order leaves no trace."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bancache.encodings.root import ZERO_STEP, Root

EXACT = [(4, 256, 1.0, 10), (4, 256, 1.0, 100), (4, 256, 1.0, 1001), (8, 256, 2.0, 37), (12, 256, 4.0, 100)]
EXACT += [(2, 1024, 1.0, 100), (2, 64, 2.0, 5), (2, 256, 1.0, 4), (3, 256, 1.0, 33)]


@pytest.mark.parametrize(("r", "levels", "temperature", "classes"), EXACT)
def test_sums_are_exact_in_any_order(r: int, levels: int, temperature: float, classes: int) -> None:
    root = Root(classes, r, levels)
    power = root.exact_power(temperature)
    assert power is not None
    row = torch.from_numpy(np.arange(classes) % levels).to(torch.float32).clamp(min=ZERO_STEP)
    row[-1] = levels - 1
    weights = torch.ones_like(row)
    for _ in range(power):
        weights = weights * row
    true = sum(Fraction(float(weight)) for weight in weights)
    for order in (weights, weights.flip(0), weights.sort().values):
        total = 0.0
        for weight in order.tolist():
            total += weight
        assert Fraction(total) == true
    assert Fraction(float(weights.sum(dtype=torch.float64))) == true


def test_a_power_is_exact_only_if_it_is_whole_and_its_sums_fit_float64() -> None:
    assert Root(100, 8).exact_power(1.0) is None
    assert Root(100, 4).exact_power(3.0) is None
    assert Root(8_321, 4).exact_power(1.0) == 4
    assert Root(8_322, 4).exact_power(1.0) is None
    assert Root(33, 4, 1024).exact_power(1.0) is None
