"""One writer at a time, by real processes' locks."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contracts.tiny import CPU, RECIPE, architecture

from bancache.errors import BusyError
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.locks import exclusive, exclusive_file, is_alive, is_gone
from bancache.training import TrainerOptions, run_for_labels, train


def test_a_file_has_one_maker_who_is_named(tmp_path: Path) -> None:
    with exclusive_file(tmp_path / "a.pt"):
        with (
            pytest.raises(BusyError, match=rf"a\.pt.* {os.getpid()} .*20"),
            exclusive_file(tmp_path / "a.pt"),
        ):
            raise AssertionError("held twice")
        with exclusive_file(tmp_path / "b.pt"):
            pass
    assert list(tmp_path.iterdir()) == []
    with exclusive_file(tmp_path / "a.pt"):
        assert [p.name for p in tmp_path.iterdir()] == ["a.pt.lock"]


def test_what_a_killed_holder_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.pt.lock").write_text("{")
    with exclusive_file(tmp_path / "a.pt"):
        pass
    assert not (tmp_path / "a.pt.lock").exists()


def test_a_lock_that_was_removed_while_waiting_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removes the file just before we take the lock on what is then nobody's file."""
    real, calls = fcntl.flock, 0

    def flock(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "a.pt.lock").unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive_file(tmp_path / "a.pt"):
        assert calls == 2
        assert (tmp_path / "a.pt.lock").exists()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(BusyError, match=str(os.getpid())),
        exclusive(tmp_path),
    ):
        raise AssertionError("held twice")


def test_a_second_training_of_the_same_file_is_refused(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1")
    with exclusive_file(tmp_path / "gen0.pt"), pytest.raises(BusyError, match=r"gen0\.pt"):
        train(run, data, held_out, TrainerOptions(tmp_path / "gen0.pt", CPU))
    assert train(run, data, held_out, TrainerOptions(tmp_path / "gen0.pt", CPU)).fresh
    assert {p.name for p in tmp_path.iterdir()} == {"gen0.pt", "gen0.pt.jsonl"}


def test_a_process_that_ended_and_that_nobody_waited_for_is_gone() -> None:
    program = "import json; from bancache.system.locks import note; print(json.dumps(note()))"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        holder = json.loads(child.stdout.read())
    while ") Z " not in Path(f"/proc/{child.pid}/stat").read_text():
        time.sleep(0.01)
    assert is_gone(holder)
    assert not is_alive(holder)
    assert child.wait() == 0
    assert is_gone(holder)
