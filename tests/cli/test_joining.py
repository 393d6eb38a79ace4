"""`bancache dump` by several processes: who is refused, who helps, what is said and with which exit code."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from contracts.calling import Chain, call, refuse, succeed
from contracts.killing import tree

from bancache.errors import BancacheError
from bancache.models.teacher import Teacher
from bancache.report.results import read_records
from bancache.system.device import choose_device
from bancache.system.locks import exclusive
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt
from bancache.system.subprocesses import Ended, Team
from bancache_cli import console, workers


def dump_args(chain: Chain, out: Path) -> list[str]:
    return ["dump", "--teacher", str(chain / "gen0.pt"), "--out", str(out)]


def test_a_dump_by_one_that_joins_is_the_same_dump(chain: Chain, tmp_path: Path) -> None:
    said = succeed(*dump_args(chain, tmp_path / "a.zarr"), "--join", "--rank", "1", "--world-size", "3")
    assert said["digest"] == chain.said["gen0.zarr"]["digest"]
    again = succeed(*dump_args(chain, tmp_path / "a.zarr"), "--join")
    assert again["images_per_second"] is None
    assert len(read_records(tmp_path / "results.jsonl")) == 1


def test_a_second_dump_is_refused_and_told_how_to_help(chain: Chain, tmp_path: Path) -> None:
    out = shutil.copytree(chain / "gen0.zarr", tmp_path / "a.zarr")
    said = rf".*a\.zarr is in use by pid {os.getpid()} on \S+ since \S+"
    with exclusive(out, sharing=True) as share:
        for _ in range(2):
            assert "--join" in refuse(5, said, *dump_args(chain, out), "-q", keep=out)
            assert "--join" in refuse(5, said, *dump_args(chain, out), "--overwrite", "-q", keep=out)
            assert "--join" in refuse(5, said, *dump_args(chain, out), "--workers", "2", "-q", keep=out)
            share()
        succeed(*dump_args(chain, out), "--join")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "1"], "--rank and --world-size are for those that join"),
        (["--world-size", "2"], "--rank and --world-size are for those that join"),
        (["--join", "--rank", "2"], r"--rank 2 of how many\?"),
        (["--join", "--rank", "2", "--world-size", "2"], "there is no worker 2 of 2"),
        (["--join", "--overwrite"], "who joins cannot overwrite"),
        (["--workers", "0"], "--workers 0 would do nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(chain: Chain, tmp_path: Path, words: list[str], said: str) -> None:
    assert refuse(2, said, *dump_args(chain, tmp_path / "a.zarr"), *words, keep=tmp_path)


def test_launchers_are_asked_by_those_that_join_and_by_no_others(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("WORLD_SIZE", "4")
    succeed(*dump_args(chain, tmp_path / "a.zarr"))
    refuse(2, "there is no worker 9 of 4", *dump_args(chain, tmp_path / "b.zarr"), "--join", keep=tmp_path)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_what_cannot_fit_is_not_begun(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind, and whoever knows better may say so."""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 10**9, 5000))
    argv = dump_args(chain, tmp_path / "a.zarr")
    said = rf"what is missing of {tmp_path}/a\.zarr takes about 0\.\d MB, and {tmp_path} has 0\.0 MB"
    assert "--force" in refuse(6, said, *argv, "-q", keep=tmp_path)
    assert succeed(*argv, "--force")["digest"] == chain.said["gen0.zarr"]["digest"]
    succeed(*argv)  # nothing is missing any more, so nothing is needed


def test_a_batch_too_large_for_memory_names_its_size(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(kind: BaseException) -> Callable[..., torch.Tensor]:
        def logits(self: Teacher, images: torch.Tensor) -> torch.Tensor:
            raise kind

        return logits

    for kind in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ):
        monkeypatch.setattr(Teacher, "logits", full(kind))
        said = "cpu has no memory for 96 images in one pass of the teacher"
        assert "--batch-size" in refuse(1, said, *dump_args(chain, tmp_path / "a.zarr"), "-q", keep=tmp_path)
    monkeypatch.setattr(Teacher, "logits", full(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        call(*dump_args(chain, tmp_path / "a.zarr"))


# --workers: what each is told, and what is said of their ends.


def asked(*argv: str, count: int = 2, place: Rank | None = None, **how: bool) -> workers.Workers:
    flags = {"join": False, "overwrite": False, "quiet": True, **how}
    return workers.Workers(count, list(argv), place or Rank(), **flags)


def test_each_worker_gets_the_same_command_and_its_place() -> None:
    argv = ["dump", "--teacher", "a.pt", "--workers", "2", "--json", "-q", "--num-views=4", "--workers=2"]
    start = [
        *workers._commands(asked("dump"))[0][:3],
        "dump",
        "--teacher",
        "a.pt",
        "--num-views=4",
        "--quiet",
    ]
    assert workers._commands(asked(*argv)) == [
        [*start, "--join", "--rank", "0", "--world-size", "2", "--worker", "0"],
        [*start, "--join", "--rank", "1", "--world-size", "2", "--worker", "1"],
    ]
    joined = [*argv, "--join", "--rank", "1", "--world-size=3"]
    assert workers._commands(asked(*joined, place=Rank(1, 3), join=True)) == [
        [*start, "--join", "--rank", "2", "--world-size", "6", "--worker", "0"],
        [*start, "--join", "--rank", "3", "--world-size", "6", "--worker", "1"],
    ]
    assert workers._commands(asked(*argv, "--overwrite", overwrite=True)) == [
        [*start, "--overwrite", "--worker", "0"],
        [*start, "--join", "--rank", "1", "--world-size", "2", "--worker", "1"],
    ]


def test_what_is_left_over_is_counted_and_each_end_is_told(
    capsys: pytest.CaptureFixture[str], chain: Chain
) -> None:
    layout = workers.look_at(chain / "gen0.zarr")
    assert layout is not None
    assert layout.complete
    state = workers.State(layout.layout, frozenset([0, 2, 3]))
    ended = [Ended(-9, ""), Ended(6, "error: no space left on device: x\nhint: make room\n"), Ended(0, "")]
    error = workers._left_over(state, ended, Interrupt(), console.Reporter())
    assert (str(error), error.hint, error.exit_code) == (
        "3 of 4 shards are done",
        "run the same command to finish",
        1,
    )
    assert capsys.readouterr().err.splitlines() == [
        "worker 0: killed by signal 9",
        "worker 1: no space left on device: x",
    ]


def test_what_all_say_is_said_once() -> None:
    said = "error: data set: made with 'a', but this run has 'b'\nhint: name it\n"
    error = workers._left_over(None, [Ended(4, said)] * 3, Interrupt(), console.Reporter(quiet=True))
    assert type(error) is BancacheError
    assert (str(error), error.hint, error.exit_code) == (
        "data set: made with 'a', but this run has 'b'",
        "name it",
        4,
    )


def test_a_stop_is_no_failure(chain: Chain) -> None:
    interrupt = Interrupt()
    interrupt.signal_number = 15
    state = workers.look_at(chain / "gen0.zarr")
    assert state is not None
    half = workers.State(state.layout, frozenset([1]))
    error: Any = workers._left_over(half, [Ended(143, "stopped: ...")], interrupt, console.Reporter())
    assert (str(error), error.exit_code) == ("stopped: 1 of 4 shards", 143)


@pytest.mark.slow
def test_two_workers_make_the_same_cache(chain: Chain, tmp_path: Path) -> None:
    """Two processes of their own; one line of progress for both, one result line is written."""
    outcome = call(*dump_args(chain, tmp_path / "a.zarr"), "--workers", "2")
    assert outcome.code == 0, outcome.err
    assert re.search(r"dump: 100%, 384 of 384 images in", outcome.err)
    assert tree(tmp_path / "a.zarr") == tree(chain / "gen0.zarr")
    assert len(read_records(tmp_path / "results.jsonl")) == 1


def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [str(choose_device("auto", local=local)) for local in range(4)]
    assert found == ["cuda", "cuda:1", "cuda:0", "cuda:1"]
    assert str(choose_device("cuda:0", local=1)) == "cuda:0"
    assert str(choose_device("cpu", local=1)) == "cpu"


def test_workers_that_are_all_refused_make_the_command_refused(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the cache is complete, but for somebody who asks for another one."""
    out = shutil.copytree(chain / "gen0.zarr", tmp_path / "a.zarr")
    said = "error: encoding: made with root4, but this run has float16\nhint: use the same\n"
    monkeypatch.setattr(workers, "_start", lambda *args: None)
    monkeypatch.setattr(Team, "wait", lambda *args: [Ended(4, said)] * 2)
    argv = [*dump_args(chain, out), "--workers", "2", "-q"]
    hint = refuse(4, "encoding: made with root4, but this run has float16", *argv, keep=out)
    assert hint == "use the same"
    monkeypatch.setattr(Team, "wait", lambda *args: [Ended(-9, ""), Ended(0, "")])
    assert call(*argv).code == 0
