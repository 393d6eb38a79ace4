"""A run compiles its model where that was measured to pay, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.replaying import pretend_to_capture
from contracts.tiny import CPU, RECIPE, architecture
from sources.tiny import Heard

from bancache.system import capturing
from bancache.training import Recipe, compiling, cuda_graph
from bancache.training.compiling import choose_compile, seconds_a_step

NET = architecture("resnet-8")
LONG = replace(RECIPE, epochs=100)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a CPU be measured; the list has the seconds a step takes plainly, compiled, and that compiling takes."""
    times = [0.01, 0.0075, 40.0]
    clock: Iterator[float] = iter([0.0, times[2]])

    def take(forward: Any, model: Any, *rest: Any) -> float:
        return times[0] if forward is model else times[1]

    monkeypatch.setattr(capturing, "DEVICE_TYPES", ("cuda", "cpu"))
    monkeypatch.setattr(compiling, "seconds_a_step", take)
    monkeypatch.setattr(torch, "compile", lambda model, **how: lambda images: model(images))
    monkeypatch.setattr("bancache.training.compiling.monotonic", lambda: next(clock))
    return times


def choose(heard: Heard, *, batches: int = 390, runs: int = 1, recorded: Any = None) -> Recipe:
    return choose_compile(LONG, NET, batches, runs, CPU, recorded=recorded, progress=heard)


def test_a_long_run_is_compiled_and_says_what_was_measured(measured: list[float]) -> None:
    heard = Heard()
    assert choose(heard).compile
    (note,) = heard.notes
    # 40 s of compiling, 2.5 ms saved at each of 390 steps of an epoch.
    assert all(part in note for part in ("40 s", "7.50 ms", "10.00", "41.0 epochs", "--no-compile"))


def test_a_run_that_gains_less_than_compiling_took_is_not_compiled(measured: list[float]) -> None:
    measured[1] = 0.0095
    heard = Heard()
    assert not choose(heard).compile
    assert "--compile" in heard.notes[0]


def test_nothing_is_measured_where_torch_is_to_repeat_its_bits(
    measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another measurement might choose otherwise."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not choose(Heard()).compile


def test_a_short_run_is_not_even_tried(measured: list[float]) -> None:
    heard = Heard()
    assert not choose(heard, batches=39).compile
    assert heard.notes == []


def test_a_sequence_counts_the_steps_of_all_its_models(measured: list[float]) -> None:
    assert choose(Heard(), batches=39, runs=10).compile


@pytest.mark.parametrize("before", [True, False])
def test_a_run_under_way_keeps_what_it_began_with(measured: list[float], before: bool) -> None:
    assert choose(Heard(), recorded={"compile": before}).compile is before


@pytest.mark.parametrize(
    ("told", "shown"), [("no compiler here\nand a trace", "no compiler here"), ("", "RuntimeError")]
)
def test_a_model_that_does_not_compile_is_trained_as_it_is(
    measured: list[float], monkeypatch: pytest.MonkeyPatch, told: str, shown: str
) -> None:
    def fail(model: Any, **how: Any) -> Any:
        raise RuntimeError(told)

    monkeypatch.setattr(torch, "compile", fail)
    heard = Heard()
    assert not choose(heard).compile
    assert shown in heard.notes[0]
    assert "trace" not in heard.notes[0]


def test_a_cpu_compiles_only_if_asked_to() -> None:
    heard = Heard()
    assert not choose_compile(LONG, NET, 390, 10, CPU, recorded=None, progress=heard).compile
    assert heard.notes == []


def test_a_measured_step_is_taken_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    replays = pretend_to_capture(monkeypatch)
    monkeypatch.setattr(compiling, "capture", vars(cuda_graph)["capture"])
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    about = {**NET, "channels": 3, "image_size": [8, 8]}
    assert seconds_a_step(net, net, RECIPE, about, CPU) > 0
    assert replays == [50]
    assert all(parameter.grad is not None for parameter in net.parameters())
