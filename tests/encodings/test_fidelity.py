"""The divergence an encoding causes, measured and merged."""

import math

import pytest
import torch

from bancache.encodings import parse_encoding
from bancache.encodings.fidelity import divergence, merge, summarise, tally


def test_divergence_is_kl_in_nats() -> None:
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)]])
    decoded = torch.tensor([[0.25, 0.5, 0.25]])
    # 0.5·ln 2 + 0.25·ln(1/2) = 0.25·ln 2
    assert float(divergence(logits, decoded, 1.0)) == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_tallies_add_up_and_do_not_depend_on_the_split() -> None:
    encoding = parse_encoding("root4", 10)
    logits = torch.randn((100, 10), generator=torch.Generator().manual_seed(0)) * 3
    whole = summarise(tally(encoding, logits, encoding.encode(logits)))
    split = [logits[i : i + 33] for i in range(0, 100, 33)]
    parts = [tally(encoding, part, encoding.encode(part)) for part in split]
    merged = summarise(merge(parts))
    for temperature in ("1", "2", "4"):
        assert merged[temperature] == pytest.approx(whole[temperature])
        kl = divergence(
            logits, encoding.probabilities(encoding.encode(logits), float(temperature)), float(temperature)
        )
        assert whole[temperature]["kl_mean"] == pytest.approx(float(kl.mean()))
        assert whole[temperature]["kl_max"] == float(kl.max())
        exact = float(kl.sort().values[99])
        assert exact <= whole[temperature]["kl_p999"] <= exact * 2 ** (1 / 8) * (1 + 1e-9)


def test_a_wrong_encoding_is_seen() -> None:
    """Breaking one row's largest class shows in every figure."""
    encoding = parse_encoding("root4", 10)
    logits = torch.randn((100, 10), generator=torch.Generator().manual_seed(0)) * 3
    fields = encoding.encode(logits)
    sound = summarise(tally(encoding, logits, fields))["1"]
    assert sound["kl_max"] < 1e-3
    fields["q"][7] = fields["q"][7].flip(0)
    summary = summarise(tally(encoding, logits, fields))["1"]
    assert summary["argmax_agreement"] == pytest.approx(sound["argmax_agreement"] - 0.01)
    assert summary["kl_max"] > 0.1
