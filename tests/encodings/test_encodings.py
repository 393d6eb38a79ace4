"""Every encoding through the contract, its frozen bytes, and its bounds."""

import contracts.encoding as contract
import pytest
import torch

from bancache.encodings import KNOWN, default_encoding, from_config, parse_encoding
from bancache.encodings.dense import Dense
from bancache.encodings.root import Root
from bancache.encodings.topk import TopK
from bancache.errors import NonFiniteError, UsageError

# Largest divergence of a row of wide random logits at a temperature that the encoding supports, nats.
BOUNDS = {
    "float32": 1e-14,
    "float16": 1e-6,
    "float16-shift": 1e-6,
    "bfloat16": 2e-5,
    "int8": 3e-4,
    "topk-10": 1.0,
    "root4": 6e-5,
    "root8": 2e-4,
    "root12": 3e-4,
    "root2-64": 5e-3,
    "root2-256": 4e-4,
    "root2-1024": 3e-5,
}


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("name", KNOWN)
def test_the_contract_holds(name: str, classes: int) -> None:
    encoding = parse_encoding(name, classes)
    assert encoding.name == name
    contract.check_fields_match_their_specs(encoding, classes)
    contract.check_rows_are_independent(encoding, classes)
    contract.check_probabilities_are_within_the_bound(encoding, classes, bound=BOUNDS[name])
    contract.check_a_shift_of_all_logits_changes_nothing(encoding, classes)
    contract.check_extremes_survive(encoding, classes)
    contract.check_config_reads_back(encoding, classes)
    contract.check_reading_does_not_change_the_fields(encoding, classes)


def test_the_bytes_are_frozen() -> None:
    """Caches on disk hold these bytes: if they change, the meaning of every cache changes."""
    z = torch.tensor([[0.0, 1.0, 2.5, -3.0, 10.0, 9.9, 7.0, -40.0]])
    # By hand: rint(255 · exp((z − 10) / 4)), and so on for the others.
    assert parse_encoding("root4", 8).encode(z)["q"].tolist() == [[21, 27, 39, 10, 255, 249, 120, 0]]
    assert parse_encoding("root8", 8).encode(z)["q"].tolist() == [[73, 83, 100, 50, 255, 252, 175, 0]]
    assert parse_encoding("root2-64", 8).encode(z)["q"].tolist() == [[0, 1, 1, 0, 63, 60, 14, 0]]
    assert parse_encoding("root2-1024", 8).encode(z)["q"].tolist() == [[7, 11, 24, 2, 1023, 973, 228, 0]]
    assert parse_encoding("root12", 8).encode(z)["q"].tolist() == [[111, 120, 136, 86, 255, 253, 199, 4]]
    assert parse_encoding("root2-256", 8).encode(z)["q"].tolist() == [[2, 3, 6, 0, 255, 243, 57, 0]]
    assert parse_encoding("float32", 8).encode(z)["logits"].tolist() == z.tolist()
    half = parse_encoding("float16", 8).encode(z)["logits"]
    assert half.tolist() == [[-10.0, -9.0, -7.5, -13.0, 0.0, -0.0999755859375, -3.0, -50.0]]
    shifted = parse_encoding("float16-shift", 8).encode(z)
    assert shifted["logits"].tolist() == half.tolist()
    assert shifted["shift"].tolist() == [10.0]
    brain = parse_encoding("bfloat16", 8).encode(z)["logits"]
    assert brain.tolist() == [[-16096, -16112, -16144, -16048, 0, -16947, -16320, -15800]]
    steps = parse_encoding("int8", 8).encode(z)
    # By hand: 255 − rint((10 − z) · 255 / 50).
    assert steps["q"].tolist() == [[204, 209, 217, 189, 255, 254, 240, 0]]
    assert steps["step"].tolist() == pytest.approx([50 / 255])
    top = parse_encoding("topk-3", 8).encode(z)
    assert top["index"].tolist() == [[4, 5, 6]]
    assert top["logits"].tolist() == [[0.0, -0.0999755859375, -3.0]]
    # (e^0 + e^1 + e^2.5 + e^-3 + e^-40) / the sum over all eight.
    assert top["rest"].tolist() == pytest.approx([15.950563 / 43069.42], rel=1e-4)


def test_top_k_spreads_the_rest_evenly() -> None:
    z = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04]]))
    encoding = parse_encoding("topk-2", 5)
    p = encoding.probabilities(encoding.encode(z), 1.0)
    torch.testing.assert_close(p, torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1]]), rtol=1e-3, atol=0)


def test_top_k_takes_rows_whose_largest_probabilities_alone_are_known() -> None:
    """As in caches from elsewhere: the same fields as from all logits, in whatever order they come."""
    z = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04], [0.01, 0.01, 0.02, 0.9, 0.06]]))
    encoding = TopK(5, 3)
    whole = encoding.encode(z)
    kept = encoding.keep(
        torch.tensor([[1, 0, 2], [4, 3, 2]]), torch.tensor([[0.3, 0.4, 0.2], [0.06, 0.9, 0.02]])
    )
    assert kept["index"].tolist() == whole["index"].tolist() == [[0, 1, 2], [3, 4, 2]]
    torch.testing.assert_close(kept["logits"], whole["logits"], rtol=0, atol=4e-3)
    torch.testing.assert_close(kept["rest"], torch.tensor([0.1, 0.02]), rtol=1e-5, atol=0)
    assert kept["index"].dtype == torch.int16
    with pytest.raises(UsageError, match=r"3 classes .* not 2"):
        encoding.keep(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.2]]))


def test_rounded_probabilities_that_exceed_1_leave_no_rest() -> None:
    kept = TopK(4, 2).keep(torch.tensor([[2, 1]]), torch.tensor([[0.75, 0.2505]]))
    assert kept["rest"].tolist() == [0.0]


def test_the_tail_of_top_k_is_exact_at_temperature_1_alone() -> None:
    """At another temperature its mass would need the logits that were not kept: it is taken as spread evenly."""
    z = torch.log(torch.tensor([[0.5, 0.2, 0.18, 0.12]]))
    encoding = parse_encoding("topk-1", 4)
    fields = encoding.encode(z)
    assert float(encoding.probabilities(fields, 1.0)[0, 0]) == pytest.approx(0.5)
    # By hand: √½ / (√½ + 3 √(½/3)), where the truth is √½ / (√½ + √0.2 + √0.18 + √0.12).
    assert float(encoding.probabilities(fields, 2.0)[0, 0]) == pytest.approx(1 / (1 + 3**0.5))


def test_a_shift_keeps_the_logits_themselves() -> None:
    z = torch.tensor([[100.0, 98.5, -20.0], [-7.25, -8.0, -7.5]])
    encoding = Dense(3, "float16-shift")
    assert torch.equal(encoding.logits(encoding.encode(z)), z)


def test_root_decodes_by_powers() -> None:
    """A row worked out by hand: steps 255, 51 and 0 (read as a quarter step)."""
    fields = {"q": torch.tensor([[255, 51, 0]], dtype=torch.uint8)}
    small, least = 0.2, 0.25 / 255
    for temperature, power in ((1.0, 4), (4.0, 1), (2.0, 2), (0.5, 8), (3.0, 4 / 3)):
        total = 1 + small**power + least**power
        expected = torch.tensor([[1 / total, small**power / total, least**power / total]])
        torch.testing.assert_close(Root(3, 4).probabilities(fields, temperature), expected)


def test_the_default_supports_its_temperature() -> None:
    for temperature in (0.5, 1.0, 2.0, 4.0):
        assert parse_encoding(default_encoding(temperature, 10), 10).max_temperature >= temperature


@pytest.mark.parametrize(
    "name", ["root", "root0", "root4-2", "root2-99999", "int3", "", "root44", "topk", "topk-0"]
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        parse_encoding(name, 10)


def test_a_config_of_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match=r"root-2.*root-1"):
        from_config({"name": "root4", "id": "root-2", "root": 4, "levels": 256}, 10)


def test_float16_says_when_it_overflows() -> None:
    for name in ("float16", "float16-shift", "topk-2"):
        with pytest.raises(NonFiniteError, match="7e\\+04") as caught:
            parse_encoding(name, 2).encode(torch.tensor([[0.0, 70000.0]]))
        assert "--encoding float32" in caught.value.hint
