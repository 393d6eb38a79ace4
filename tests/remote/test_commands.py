"""The commands as people type them: what they print, how they end, and what a dump with a copy survives."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from contracts.killing import Forker, tree
from contracts.object_store import FaultyWay

from bancache.system.bucket import Bucket, Patience
from bancache_cli.app import run

SAID: dict[str, list[str]] = {"notes": [], "warnings": []}


def dump_args(
    teacher: Path, out: Path, address: str | None = None, *, num_views: int = 6, batch_size: int = 16
) -> list[str]:
    args = [
        "dump",
        "--teacher",
        str(teacher),
        "--out",
        str(out),
        *("--num-views", str(num_views)),
        *("--batch-size", str(batch_size)),
        "-q",
    ]
    return args if address is None else [*args, "--copy-to", address]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "gen0.zarr"
    assert run(dump_args(teacher_path, out)) == 0
    return out


def test_push_and_pull_report_what_they_did(
    tmp_path: Path, whole: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["push", str(whole), address, "-q"]) == 0
    assert address in capsys.readouterr().out
    assert run(["push", str(whole), address, "-q", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"out": address, "complete": True, "sent": 0, "kept": len(tree(whole)), "bytes": 0} | SAID
    out = tmp_path / "back.zarr"
    assert run(["pull", address, str(out), "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["complete"], said["kept"]) == (True, 2)
    assert tree(out) == tree(whole)
    assert run(["verify", str(out), "--deep", "-q"]) == 0


def test_without_obstore_the_extra_is_named(
    whole: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    assert run(["push", str(whole), address]) == 1
    assert 'pip install "bancache[s3]"' in capsys.readouterr().err


def test_a_mirrored_dump_ends_with_a_complete_copy(
    tmp_path: Path, teacher_path: Path, whole: Path, address: str
) -> None:
    out = tmp_path / "gen0.zarr"
    assert run(dump_args(teacher_path, out, address)) == 0
    assert tree(out) == tree(whole)
    assert set(Bucket(address).listed()) == set(tree(whole))
    assert run(dump_args(teacher_path, out, address)) == 0


def test_killed_with_its_machine_a_dump_goes_on_from_its_copy(
    tmp_path: Path, forker: Forker, teacher_path: Path, address: str
) -> None:
    """As soon as more and more shards are there, each time on a machine that has nothing but the copy."""
    slowly = partial(dump_args, num_views=12, batch_size=4)
    whole = tmp_path / "whole.zarr"
    assert run(slowly(teacher_path, whole)) == 0
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for copied in (1, 4, 7):
        out = tmp_path / f"{copied}.zarr"
        command = slowly(teacher_path, out, address)
        if copied > 1:
            assert run(command) == 2  # the copy is ahead of what is here
            assert run(["pull", address, str(out), "-q"]) == 0
        there = partial(shards_at_least, address, copied)
        forker.run_together([command], signals=[(there, 0, signal.SIGKILL)], environments=[environment])
    last = tmp_path / "last.zarr"
    assert run(["pull", address, str(last), "-q"]) == 0
    assert run(slowly(teacher_path, last, address)) == 0
    assert tree(last) == tree(whole)
    assert set(Bucket(address).listed()) == set(tree(whole))


def shards_at_least(address: str, count: int) -> bool:
    """Whether so many shards are recorded at an address, or the cache there is complete and has no records."""
    time.sleep(0.02)  # each question costs the store's process as much as a copied file
    keys = Bucket(address).listed()
    return (
        sum(key.startswith(".regions/") for key in keys) >= count or sum("/c/" in key for key in keys) >= 12
    )


def test_a_copy_that_fails_stops_the_dump_and_loses_nothing(
    tmp_path: Path,
    teacher_path: Path,
    whole: Path,
    way: FaultyWay,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, real, puts = tmp_path / "gen0.zarr", Bucket.put, 0

    def failing(self: Bucket, key: str, content: bytes) -> None:
        nonlocal puts
        puts += 1
        if puts == 8:
            way.set("unavailable")
        real(self, key, content)

    monkeypatch.setattr(Bucket, "put", failing)
    monkeypatch.setattr("bancache.system.bucket.PATIENCE", Patience(total=0.2, pause=0.05))
    code = run(dump_args(teacher_path, out, address))
    said = capsys.readouterr().err
    assert code == 6, said
    assert said.count("error: ") == 1
    assert "503" in said
    way.set("")
    assert run(dump_args(teacher_path, out, address)) == 0
    assert tree(out) == tree(whole)
    assert set(Bucket(address).listed()) == set(tree(whole))


def test_starting_anew_gives_the_old_copy_up_only_for_a_new_one(
    tmp_path: Path, teacher_path: Path, whole: Path, address: str
) -> None:
    out = tmp_path / "gen0.zarr"
    assert run(["push", str(whole), address, "-q"]) == 0
    assert run([*dump_args(teacher_path, out, address, num_views=1000), "--overwrite"]) == 2
    assert set(Bucket(address).listed()) == set(tree(whole))
    assert run([*dump_args(teacher_path, out, address, num_views=4), "--overwrite"]) == 0
    assert set(Bucket(address).listed()) == set(tree(out))
    assert len(tree(out)) < len(tree(whole))


def test_a_copy_is_for_one_process(
    teacher_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*dump_args(teacher_path, Path("gen0.zarr"), address), "--join"]) == 2
    assert "--copy-to" in capsys.readouterr().err
