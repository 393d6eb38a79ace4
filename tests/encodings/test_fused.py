"""numba decodes root codes to the bits of torch, in any order and by any power that is exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bancache.encodings.root import ZERO_STEP, Root

EXACT = [(4, 256, 1.0, 10), (4, 256, 1.0, 100), (4, 256, 1.0, 1001), (8, 256, 2.0, 37), (12, 256, 4.0, 100)]
EXACT += [(2, 1024, 1.0, 100), (2, 64, 2.0, 5), (2, 256, 1.0, 4), (3, 256, 1.0, 33)]


def codes_of(root: Root, count: int) -> torch.Tensor:
    """Return rows with every code, the largest among them, as encoded rows have it."""
    drawn = np.random.default_rng(7).integers(0, root.levels, (count, root.classes))
    drawn[:, 0] = root.levels - 1
    return torch.from_numpy(drawn.astype(np.uint8 if root.levels <= 256 else np.int16))


@pytest.mark.parametrize(("r", "levels", "temperature", "classes"), EXACT)
def test_every_bit_is_the_same_with_numba(r: int, levels: int, temperature: float, classes: int) -> None:
    pytest.importorskip("numba")
    from bancache.encodings.fused import RowDecoder

    root = Root(classes, r, levels)
    q, samples = codes_of(root, 300), torch.from_numpy(np.random.default_rng(8).permutation(300)[:207])
    usual = root.probabilities({"q": q[samples]}, temperature)
    power = root.exact_power(temperature)
    assert power == r / temperature
    decoder = RowDecoder(classes=classes, power=power, zero=ZERO_STEP)
    decoder.show(q)
    fast = decoder.decode(samples)
    assert torch.equal(usual.view(torch.int32), fast.view(torch.int32))


def test_answers_that_somebody_holds_are_not_written_over_and_none_are_made_up() -> None:
    pytest.importorskip("numba")
    from bancache.encodings.fused import RowDecoder

    root, decoder = Root(10, 4), RowDecoder(classes=10, power=4, zero=ZERO_STEP)
    q = codes_of(root, 60)
    decoder.show(q)
    held = [decoder.decode(part) for part in torch.split(torch.arange(60), 10)]
    assert torch.equal(torch.cat(held), root.probabilities({"q": q}, 1.0))
    assert decoder.decode(torch.arange(0)).shape == (0, 10)
    for nobody in (-1, 60, 2**40):
        with pytest.raises(IndexError, match="no such sample"):
            decoder.decode(torch.tensor([0, nobody]))
    decoder.show(q.flip(0))
    assert torch.equal(decoder.decode(torch.arange(10)), held[-1].flip(0))


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


def test_powers_that_are_not_exact_are_left_to_torch() -> None:
    assert Root(100, 8).exact_power(1.0) is None
    assert Root(100, 4).exact_power(3.0) is None
    assert Root(8_321, 4).exact_power(1.0) == 4
    assert Root(8_322, 4).exact_power(1.0) is None
    assert Root(33, 4, 1024).exact_power(1.0) is None
