"""What holds for every encoding; tests run all of it on each of them."""

import torch

from bancache.encodings import Encoding, from_config
from bancache.encodings.fidelity import divergence


def logits(classes: int, rows: int = 64, spread: float = 4.0) -> torch.Tensor:
    return torch.randn((rows, classes), generator=torch.Generator().manual_seed(0)) * spread


def check_fields_match_their_specs(encoding: Encoding, classes: int) -> None:
    fields = encoding.encode(logits(classes))
    assert set(fields) == {spec.name for spec in encoding.fields()}
    for spec in encoding.fields():
        assert tuple(fields[spec.name].shape) == (64, *spec.shape)
        assert str(fields[spec.name].dtype) == f"torch.{spec.dtype}"
        assert len(spec.dimensions) == len(spec.shape)


def check_rows_are_independent(encoding: Encoding, classes: int) -> None:
    whole = encoding.encode(logits(classes))
    for start in (0, 5, 63):
        one = encoding.encode(logits(classes)[start : start + 1])
        for name, values in one.items():
            assert torch.equal(values[0], whole[name][start])


def check_probabilities_are_within_the_bound(encoding: Encoding, classes: int, *, bound: float) -> None:
    z = logits(classes)
    for temperature in (1.0, 2.0, 4.0):
        if temperature > encoding.max_temperature:
            continue
        p = encoding.probabilities(encoding.encode(z), temperature)
        assert p.dtype == torch.float32
        torch.testing.assert_close(p.sum(dim=1), torch.ones(64))
        assert float(divergence(z, p, temperature).max()) < bound


def check_a_shift_of_all_logits_changes_nothing(encoding: Encoding, classes: int) -> None:
    z = torch.randint(-20, 20, (16, classes), generator=torch.Generator().manual_seed(1)).float()
    p = encoding.probabilities(encoding.encode(z), 1.0)
    torch.testing.assert_close(encoding.probabilities(encoding.encode(z + 64), 1.0), p)


def check_extremes_survive(encoding: Encoding, classes: int) -> None:
    z = torch.zeros((3, classes))
    z[1, 0], z[2, 1:] = 500.0, -3e4
    p = encoding.probabilities(encoding.encode(z), 1.0)
    assert torch.isfinite(p).all()
    torch.testing.assert_close(p[0], torch.full((classes,), 1 / classes))
    assert float(p[1, 0]) > 0.99
    assert float(p[2, 0]) > 0.99


def check_config_reads_back(encoding: Encoding, classes: int) -> None:
    assert from_config(encoding.to_config(), classes) == encoding


def check_reading_does_not_change_the_fields(encoding: Encoding, classes: int) -> None:
    fields = encoding.encode(logits(classes))
    before = {name: values.clone() for name, values in fields.items()}
    first = encoding.probabilities(fields, 1.0)
    assert torch.equal(first, encoding.probabilities(fields, 1.0))
    for name, values in fields.items():
        assert torch.equal(values, before[name])
