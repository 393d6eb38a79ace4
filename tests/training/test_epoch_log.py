"""Every finished epoch is in the log once, at any time and however often the run is stopped."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import refuse, succeed
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bancache.errors import StoppedError
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Run, TrainerOptions, run_for_labels, train
from bancache.training.epoch_log import EpochLog

FIRST: dict[str, Any] = {"epoch": 1, "loss": 2.0, "train_accuracy": 0.25}
SECOND: dict[str, Any] = {"epoch": 2, "loss": 1.0, "train_accuracy": 0.5}
THIRD: dict[str, Any] = {"epoch": 3, "loss": 0.5, "train_accuracy": 0.75}


@pytest.fixture
def run(spec: DataSpec, data: ImageSet) -> Run:
    return run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars that TensorBoard reads from a folder: for each name, step and value."""
    shown = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def test_the_log_is_there_while_the_run_is_under_way_and_holds_each_epoch_once(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    """96 images in batches of 16 are 6 steps an epoch: stopped in the third, again there, and in the fourth."""
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    for checks, epochs in ((14, 2), (1, 2), (6, 3)):
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, interrupt=StopAfter(checks))
        assert [line["epoch"] for line in lines(tmp_path / "a.pt.jsonl")] == list(range(1, epochs + 1))
    header = train(run, data, held_out, options).checkpoint.header
    assert lines(tmp_path / "a.pt.jsonl") == header["history"]
    assert [line["epoch"] for line in header["history"]] == [1, 2, 3, 4]


def test_starting_anew_starts_the_log_anew(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    with pytest.raises(StoppedError):
        train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU), interrupt=StopAfter(14))
    with pytest.raises(StoppedError):
        train(
            run,
            data,
            held_out,
            TrainerOptions(tmp_path / "a.pt", CPU, overwrite=True),
            interrupt=StopAfter(7),
        )
    assert [line["epoch"] for line in lines(tmp_path / "a.pt.jsonl")] == [1]


def test_tensorboard_shows_each_epoch_once_after_a_stop(
    tmp_path: Path, run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    options = TrainerOptions(tmp_path / "a.pt", CPU, tensorboard=tmp_path / "tb")
    with pytest.raises(StoppedError):
        train(run, data, held_out, options, interrupt=StopAfter(14))
    history = train(run, data, held_out, options).checkpoint.header["history"]
    shown = scalars(tmp_path / "tb")
    assert set(shown) == {"loss", "train_accuracy", "test_accuracy", "learning_rate"}
    for name, values in shown.items():
        assert [step for step, _ in values] == [1, 2, 3, 4]
        assert [value for _, value in values] == pytest.approx([entry[name] for entry in history], rel=1e-6)


def test_a_log_holds_what_it_was_shown_last(tmp_path: Path) -> None:
    """Killed after epoch 2 was logged and before its state was saved, a run may log other values for epoch 2."""
    other = {**SECOND, "loss": 1.5}
    for history in ([FIRST], [FIRST, SECOND]):
        with closing(EpochLog(tmp_path / "a.jsonl", tmp_path / "tb")) as log:
            log.write(history)
    with closing(EpochLog(tmp_path / "a.jsonl", tmp_path / "tb")) as log:
        log.write([FIRST])
        log.write([FIRST, other])
        log.write([FIRST, other, THIRD])
        log.write([FIRST, other, {**THIRD, "test_accuracy": 0.625}])
    assert lines(tmp_path / "a.jsonl") == [FIRST, other, {**THIRD, "test_accuracy": 0.625}]
    assert scalars(tmp_path / "tb") == {
        "loss": [(1, 2.0), (2, 1.5), (3, 0.5)],
        "train_accuracy": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "test_accuracy": [(3, 0.625)],
    }


def test_a_log_that_cannot_be_read_back_is_never_left(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "a.jsonl")
    log.write([FIRST, SECOND])
    with pytest.raises(ValueError, match="JSON"):
        log.write([FIRST, {**SECOND, "loss": float("nan")}])
    assert lines(tmp_path / "a.jsonl") == [FIRST, SECOND]


def test_without_tensorboard_one_line_names_the_extra(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    argv = (
        "train-teacher",
        "--data",
        f"npz:{npz}",
        "--out",
        tmp_path / "a.pt",
        "--tensorboard",
        tmp_path / "tb",
    )
    hint = refuse(1, ".*TensorBoard.*", *argv)
    assert hint == 'pip install "bancache[tensorboard]"'
    assert not (tmp_path / "a.pt").exists()


def test_the_commands_write_for_tensorboard(tmp_path: Path, npz: Path) -> None:
    """A sequence has a folder for each of its runs."""
    short = ("--data", f"npz:{npz}", "--epochs", "2", "--tensorboard", tmp_path / "tb")
    succeed("generations", *short, "--generations", "1", "--out", tmp_path / "x", "--model", "convnet-4")
    for run in ("seed0/gen0", "seed0/gen1"):
        assert [step for step, _ in scalars(tmp_path / "tb" / run)["loss"]] == [1, 2]
