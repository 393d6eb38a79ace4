"""The divergence an encoding causes, measured and merged."""

import math

import numpy as np
import pytest
import torch

from bancache.encodings import KNOWN, parse_encoding
from bancache.encodings.fidelity import FIGURES, count, divergence, merge, summarize, tally


def test_divergence_is_kl_in_nats() -> None:
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)]])
    decoded = torch.tensor([[0.25, 0.5, 0.25]])
    # 0.5·ln 2 + 0.25·ln(1/2) = 0.25·ln 2
    assert float(divergence(logits, decoded, 1.0)) == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_tallies_add_up_and_do_not_depend_on_the_split() -> None:
    encoding = parse_encoding("root4", 10)
    logits = torch.randn((100, 10), generator=torch.Generator().manual_seed(0)) * 3
    whole = summarize(tally(encoding, logits, encoding.encode(logits)))
    split = [logits[i : i + 33] for i in range(0, 100, 33)]
    parts = [tally(encoding, part, encoding.encode(part)) for part in split]
    merged = summarize(merge(parts))
    for temperature in ("1", "2", "4"):
        assert merged[temperature] == pytest.approx(whole[temperature])
        kl = divergence(
            logits, encoding.probabilities(encoding.encode(logits), float(temperature)), float(temperature)
        )
        assert whole[temperature]["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-4)
        assert whole[temperature]["kl_max"] == pytest.approx(float(kl.max()), rel=1e-3)
        exact = float(kl.sort().values[99])
        assert exact * 0.999 <= whole[temperature]["kl_p999"] <= exact * 2 ** (1 / 8) * 1.001


@pytest.mark.parametrize(("classes", "rows"), [(2, 70), (100, 70), (1000, 130)])
@pytest.mark.parametrize("spread", [1.0, 12.0])
@pytest.mark.parametrize("name", KNOWN)
def test_float32_sums_agree_with_the_float64_reference(
    name: str, classes: int, rows: int, spread: float
) -> None:
    """Means to 1e-4 and single rows to 5e-3, down to 1e-12 nats; a thousand classes go through in blocks."""
    encoding = parse_encoding(name, classes)
    logits = torch.randn((rows, classes), generator=torch.Generator().manual_seed(1)) * spread
    fields = encoding.encode(logits)
    found = summarize(tally(encoding, logits, fields))
    for temperature, figures in found.items():
        exact = divergence(logits, encoding.probabilities(fields, float(temperature)), float(temperature))
        assert figures["kl_mean"] == pytest.approx(float(exact.mean()), rel=1e-4, abs=1e-12)
        assert figures["kl_max"] == pytest.approx(float(exact.max()), rel=5e-3, abs=1e-11)


def test_logits_far_apart_do_not_upset_the_sums() -> None:
    """Probabilities that float32 cannot hold count as nothing, not as NaN."""
    logits = torch.tensor([[0.0, -3e4, -90.0], [5e3, 0.0, 1.0]])
    for name in ("float32", "root4", "int8", "topk-1"):
        encoding = parse_encoding(name, 3)
        for figures in summarize(tally(encoding, logits, encoding.encode(logits))).values():
            assert all(math.isfinite(value) for value in figures.values())


def test_the_gradient_error_is_relative_to_an_untrained_students_gradient() -> None:
    """Worked by hand: p = (1/2, 1/4, 1/4) decoded as (1/4, 1/2, 1/4)."""
    encoding = parse_encoding("float32", 3)
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    assert summarize(tally(encoding, logits, encoding.encode(logits)))["1"]["gradient_error"] < 1e-6
    swapped = encoding.encode(torch.log(torch.tensor([[0.25, 0.5, 0.25]])))
    # ‖p̂ − p‖² = 2/16; ‖1/3 − p‖² = 1/4 + 1/16 + 1/16 − 1/3 = 1/24.
    error = summarize(tally(encoding, logits, swapped))["1"]["gradient_error"]
    assert error == pytest.approx(math.sqrt(3), rel=1e-5)
    # A uniform row has no gradient; it adds nothing to the error of the others.
    both = torch.cat([logits, torch.zeros(1, 3)])
    fields = {"logits": torch.cat([swapped["logits"], torch.zeros(1, 3)])}
    assert summarize(tally(encoding, both, fields))["1"]["gradient_error"] == pytest.approx(error)
    nothing = summarize(tally(encoding, both[1:], {"logits": torch.zeros(1, 3)}))
    assert nothing["1"]["gradient_error"] == 0


def test_a_figure_that_an_older_tally_lacks_is_left_out() -> None:
    """A cache half written before gradient errors were measured can be completed, and has no gradient error."""
    encoding = parse_encoding("root4", 10)
    logits = torch.randn((40, 10), generator=torch.Generator().manual_seed(0))
    new = tally(encoding, logits, encoding.encode(logits))
    old = {t: {k: v for k, v in part.items() if not k.startswith("gradient")} for t, part in new.items()}
    for both in ([old, new], [new, old], [old, old]):
        summary = summarize(merge(both))["1"]
        assert set(summary) == {"kl_mean", "kl_p999", "kl_max", "argmax_agreement"}
        assert summary["kl_mean"] == pytest.approx(summarize(new)["1"]["kl_mean"])


def test_a_wrong_encoding_is_seen() -> None:
    """Breaking one row's largest class shows in every figure."""
    encoding = parse_encoding("root4", 10)
    logits = torch.randn((100, 10), generator=torch.Generator().manual_seed(0)) * 3
    fields = encoding.encode(logits)
    intact = summarize(tally(encoding, logits, fields))["1"]
    assert intact["kl_max"] < 1e-3
    fields["q"][7] = fields["q"][7].flip(0)
    summary = summarize(tally(encoding, logits, fields))["1"]
    assert summary["argmax_agreement"] == pytest.approx(intact["argmax_agreement"] - 0.01)
    assert summary["kl_max"] > 0.1


def test_bins_are_frozen_and_what_is_below_the_lowest_counts_as_zero() -> None:
    """Eighths of an octave, by their upper edge, as manifests keep them: 0 and 2^-65 nats, 2^-10, and a little more."""
    figures = np.zeros((4, FIGURES))
    figures[:, ::4] = np.array([[0.0], [2.0**-65], [2.0**-10], [2.0**-10 * 1.001]])
    for temperature in ("1", "2", "4"):
        assert count(figures)[temperature]["bins"] == {"-480": 2, "-80": 1, "-79": 1}
