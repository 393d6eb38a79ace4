"""`bancache dump --join`: several processes fill one cache, others are refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from contracts.calling import Chain, call, refuse, succeed

from bancache.models.teacher import Teacher
from bancache.report.results import read_records
from bancache.system.device import choose_device
from bancache.system.locks import exclusive


def dump_args(chain: Chain, out: Path) -> list[str]:
    return ["dump", "--teacher", str(chain / "gen0.pt"), "--out", str(out)]


def test_a_dump_by_one_process_that_joins_is_the_same_dump(chain: Chain, tmp_path: Path) -> None:
    said = succeed(*dump_args(chain, tmp_path / "a.zarr"), "--join", "--rank", "1", "--world-size", "3")
    assert said["digest"] == chain.said["gen0.zarr"]["digest"]
    again = succeed(*dump_args(chain, tmp_path / "a.zarr"), "--join")
    assert again["images_per_second"] is None
    assert len(read_records(tmp_path / "results.jsonl")) == 1


def test_a_second_dump_is_refused_and_told_how_to_help(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(chain / "gen0.zarr", tmp_path / "a.zarr")
    values = ("a.zarr", f"pid {os.getppid()}")
    with ExitStack() as held:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", os.getppid)  # in the name of another process that lives
            share = held.enter_context(exclusive(out, sharing=True))
        for _ in range(2):
            for more in ((), ("--overwrite",)):
                refuse(5, values, *dump_args(chain, out), *more, "-q", hint="--join", keep=out)
            share()
        succeed(*dump_args(chain, out), "--join")


def test_the_launchers_variables_count_only_with_join(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("WORLD_SIZE", "4")
    succeed(*dump_args(chain, tmp_path / "a.zarr"))
    refuse(2, ("9 of 4",), *dump_args(chain, tmp_path / "b.zarr"), "--join", keep=tmp_path)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_what_cannot_fit_is_not_begun(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind; --force starts anyway."""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 10**9, 5000))
    argv = dump_args(chain, tmp_path / "a.zarr")
    refuse(6, (f"{tmp_path}/a.zarr", "0.0 MB"), *argv, "-q", hint="--force", keep=tmp_path)
    assert succeed(*argv, "--force")["digest"] == chain.said["gen0.zarr"]["digest"]
    succeed(*argv)  # the cache is complete, so no space is needed


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
        argv = (*dump_args(chain, tmp_path / "a.zarr"), "-q")
        refuse(1, ("cpu", "96 images"), *argv, hint="--batch-size", keep=tmp_path)
    monkeypatch.setattr(Teacher, "logits", full(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        call(*dump_args(chain, tmp_path / "a.zarr"))


def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [str(choose_device("auto", local=local)) for local in range(4)]
    assert found == ["cuda", "cuda:1", "cuda:0", "cuda:1"]
    assert str(choose_device("cuda:0", local=1)) == "cuda:0"
    assert str(choose_device("cpu", local=1)) == "cpu"
