"""When a run saves its state, and what a killed run loses."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contracts.failing import Killed
from contracts.tiny import CPU, RECIPE, architecture

from bancache.errors import NonFiniteError, UsageError
from bancache.evaluation.predict import Evaluator
from bancache.models.checkpoint import load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent
from bancache.training import Run, TrainerOptions, run_for_labels, train
from bancache.training.state import read_state


class Watch(Silent):
    """Looks at a run's state after each of its 6 steps and at each epoch's end, and kills the run after some lines."""

    def __init__(self, options: TrainerOptions, lines: int = 99) -> None:
        self._path, self._lines = options.state_path, lines
        self.steps: list[int | None] = []
        self.ends: list[int | None] = []

    @contextmanager
    def stage(self, title: str, **_: Any) -> Any:
        yield self

    def advance(self, amount: int) -> None:
        self.steps.append(self._saved())

    def log(self, text: str) -> None:
        if text.startswith("epoch"):
            self.ends.append(self._saved())
            self._lines -= 1
            if self._lines == 0:
                raise Killed

    def _saved(self) -> int | None:
        """Return how many steps the saved state has taken."""
        if not self._path.exists():
            return None
        state = read_state(self._path)
        return int(state["epoch"] * 6 + state["step"])


@pytest.fixture
def run(spec: DataSpec, data: ImageSet) -> Run:
    return run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")


def test_no_state_is_saved_before_it_is_time(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    """Neither before the first step nor at an epoch's end."""
    options = TrainerOptions(tmp_path / "a.pt", CPU, save_every=3600)
    watch = Watch(options)
    train(run, data, held_out, options, progress=watch)
    assert watch.steps == [None] * 24
    assert watch.ends == [None] * 4


def test_every_0_seconds_is_after_every_step(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    options = TrainerOptions(tmp_path / "a.pt", CPU, save_every=0)
    watch = Watch(options)
    train(run, data, held_out, options, progress=watch)
    assert watch.steps == [None, *range(1, 24)]  # the step that was just taken is saved next
    assert watch.ends == [6, 12, 18, 24]


def test_a_run_killed_before_its_first_save_starts_again_and_so_does_its_log(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet, teacher_path: Path
) -> None:
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    with pytest.raises(Killed):
        train(run, data, held_out, options, progress=Watch(options, lines=3))
    assert len(options.log_path.read_text().splitlines()) == 2
    trained = train(run, data, held_out, options).checkpoint
    assert trained.fingerprint == load_checkpoint(teacher_path).fingerprint
    assert [json.loads(line) for line in options.log_path.read_text().splitlines()] == trained.header[
        "history"
    ]


def test_an_output_that_cannot_be_written_is_refused_before_the_first_step(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    options.log_path.mkdir()
    watch = Watch(options)
    with pytest.raises(UsageError):
        train(run, data, held_out, options, progress=watch)
    assert watch.steps == []


def test_an_epoch_that_is_not_saved_is_still_checked_and_leaves_nothing_to_resume(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    wild = replace(run, recipe=replace(RECIPE, lr=1e30))
    with pytest.raises(NonFiniteError, match="in epoch 1"):
        train(wild, data, held_out, options)
    assert not options.state_path.exists()
    assert train(run, data, held_out, options).fresh  # with another rate, without --overwrite


def test_seconds_of_evaluation_are_not_seconds_of_training(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves a thousand seconds in each of the four evaluations, and a millisecond at each look."""
    now, real = [0.0], Evaluator.predict

    def monotonic() -> float:
        now[0] += 1e-3
        return now[0]

    def predict(evaluator: Evaluator, *given: Any) -> Any:
        now[0] += 1e3
        return real(evaluator, *given)

    monkeypatch.setattr("bancache.training.session.time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(Evaluator, "predict", predict)
    train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU, save_every=3600, eval_every=1))
    assert now[0] > 4e3
    assert 0 < load_checkpoint(tmp_path / "a.pt").header["seconds"] < 1
