"""Which encodings may be used at which temperatures."""

from contextlib import nullcontext

import pytest

from bancache.encodings import KNOWN, default_encoding, parse_encoding
from bancache.encodings.temperature_limits import (
    divergence_at,
    require_max_divergence,
    require_temperature,
    supports_temperature,
)
from bancache.errors import UsageError

FIDELITY = {"1": {"kl_mean": 1e-5}, "2": {"kl_mean": 3e-4}, "4": {"kl_mean": 2e-3}}


def test_between_measured_temperatures_the_worse_one_counts() -> None:
    found = [divergence_at(FIDELITY, t) for t in (0.5, 1, 1.5, 2, 3, 4)]
    assert found == [1e-5, 1e-5, 3e-4, 3e-4, 2e-3, 2e-3]
    assert divergence_at(FIDELITY, 4.5) is None
    assert divergence_at(None, 1) is None
    assert divergence_at({"2": {"kl_mean": 1e-3}}, 1.5) == 1e-3


@pytest.mark.parametrize(
    ("limit", "temperature", "supported"),
    [(1, 1, True), (1, 2, False), (4, 2, True), (4, 3, False), (4, 4, False), (float("inf"), 8, True)],
)
def test_limit_and_measurement_both_count(limit: float, temperature: float, supported: bool) -> None:
    """At 3 and 4 the divergence is above a thousandth of a nat, so a limit of 4 does not help; at 8 none was measured."""
    assert supports_temperature(limit, temperature, FIDELITY) is supported


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_no_temperature_is_refused_for_every_encoding(temperature: float) -> None:
    with pytest.raises(UsageError, match=f"temperature {temperature}"):
        require_temperature(parse_encoding("float32", 3), 3, temperature, None)


def test_any_encoding_may_be_chosen_at_temperature_1() -> None:
    assert supports_temperature(1, 1, {"1": {"kl_mean": 0.1}})


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("temperature", [1.0, 1.5, 2.0, 4.0, 8.0])
def test_the_hint_names_another_encoding_that_suffices(temperature: float, classes: int) -> None:
    """For every encoding that is refused."""
    for name in KNOWN:
        encoding = parse_encoding(name, classes)
        try:
            require_temperature(encoding, classes, temperature, None)
        except UsageError as error:
            assert temperature > encoding.max_temperature
            named = str(error.hint).split("--encoding ")[1].split(";")[0]
            assert named != name
            assert parse_encoding(named, classes).max_temperature >= temperature


def test_a_refusal_names_the_divergence_or_the_limit() -> None:
    with pytest.raises(UsageError, match=r"'root8'.*2\.0e-03 nats.* 4$") as caught:
        require_temperature(parse_encoding("root8", 100), 100, 4, FIDELITY)
    assert "--encoding float16" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"'root4'.* 1, not 4") as caught:
        require_temperature(parse_encoding("root4", 1000), 1000, 4, FIDELITY)
    assert "--encoding root12" in str(caught.value.hint)


def test_the_default_follows_temperature_and_classes() -> None:
    assert [default_encoding(t, 100) for t in (0.5, 1, 2, 4, 5)] == [
        "root4",
        "root4",
        "root8",
        "root8",
        "float16",
    ]
    assert [default_encoding(t, 1000) for t in (1, 2, 3, 4)] == ["root4", "root8", "root12", "root12"]


@pytest.mark.parametrize(
    ("bound", "refused"),
    [(None, False), ((1.0, 1e-5), False), ((1.0, 9e-6), True), ((3.0, 1e-3), True), ((8.0, 1.0), True)],
)
def test_a_bound_refuses_what_is_above_it_and_what_was_not_measured(
    bound: tuple[float, float] | None, refused: bool
) -> None:
    with pytest.raises(UsageError, match="root4") if refused else nullcontext():
        require_max_divergence("root4", bound, FIDELITY)
