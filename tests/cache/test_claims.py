"""Claims: one holder a shard while that process lives, judged by the observer's own clock."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bancache.cache.claims import Claims
from bancache.errors import StorageError
from bancache.system.locks import CLAIMS, is_gone, note


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / CLAIMS).mkdir()
    return tmp_path


def test_a_shard_has_one_holder_until_it_gives_it_up(cache: Path, clock: Clock) -> None:
    mine, yours = Claims(cache, clock=clock), Claims(cache, clock=clock)
    assert mine.take(7)
    assert not yours.take(7)
    assert not mine.take(7)
    assert yours.take(8)
    mine.release(7)
    assert yours.take(7)
    yours.release_all()
    assert list((cache / CLAIMS).iterdir()) == []


def test_a_claim_that_is_not_touched_for_a_lease_is_taken_over(cache: Path, clock: Clock) -> None:
    dead, heir = Claims(cache, lease=60, clock=clock), Claims(cache, lease=60, clock=clock)
    assert dead.take(0)
    assert not dead.take(0)
    assert not heir.take(0)
    clock.now += 59
    assert not heir.take(0)
    clock.now += 1
    assert not dead.take(0)  # its own, however old
    assert heir.take(0)
    dead.release(0)
    assert (cache / CLAIMS / "000000.json").is_file(), "the old holder must not remove the new one's claim"


def test_the_lease_runs_from_when_the_observer_first_looked(cache: Path, clock: Clock) -> None:
    """However old the file says it is: another host's clock may have written that."""
    assert Claims(cache, lease=60, clock=clock).take(0)
    os.utime(cache / CLAIMS / "000000.json", (0, 0))
    clock.now += 1e6
    heir = Claims(cache, lease=60, clock=clock)
    assert not heir.take(0)
    clock.now += 60
    assert heir.take(0)


@pytest.mark.parametrize("written", [0, 2**31 + 5, 4_000_000_000])
def test_a_holder_whose_clock_is_wrong_keeps_what_it_touches(
    cache: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """In 1970, after 2038, jumping back and forth: any new time is a sign of life."""
    holder, other = Claims(cache, lease=60, clock=clock), Claims(cache, lease=60, clock=clock)
    assert holder.take(0)
    real = os.utime
    for step in range(20):
        stamp = written + (-1) ** step * step
        monkeypatch.setattr(os, "utime", lambda path, stamp=stamp: real(path, (stamp, stamp)))
        clock.now += 20
        holder.touch()
        assert not other.take(0)


def test_touching_often_costs_nothing(cache: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, calls = Claims(cache, lease=80, clock=clock), []
    assert holder.take(0)
    monkeypatch.setattr(os, "utime", lambda path: calls.append(path))
    for _ in range(100):
        clock.now += 1
        holder.touch()
    assert len(calls) == 10


def test_a_holder_whose_claim_is_gone_goes_on(cache: Path, clock: Clock) -> None:
    """Another process took it for dead, and completed the cache."""
    holder = Claims(cache, lease=60, clock=clock)
    assert holder.take(0)
    shutil.rmtree(cache / CLAIMS)
    clock.now += 60
    holder.touch()
    holder.release(0)


def test_a_dead_process_of_this_machine_has_no_claim(cache: Path, clock: Clock) -> None:
    code = f"from bancache.cache.claims import Claims; from pathlib import Path; Claims(Path({str(cache)!r})).take(3)"
    subprocess.run([sys.executable, "-c", code], check=True)
    holder = json.loads((cache / CLAIMS / "000003.json").read_text())
    assert holder["pid"] != os.getpid()
    assert Claims(cache, clock=clock).take(3)


def test_a_process_counts_as_gone_only_if_that_is_certain() -> None:
    mine = note()
    assert not is_gone(mine)
    assert is_gone({**mine, "born": mine["born"] + 1}), "another process had this number before"
    assert is_gone({**mine, "pid": 2**22 + 1})
    assert not is_gone({**mine, "pid": 2**22 + 1, "machine": "elsewhere"})
    assert not is_gone({"pid": 2**22 + 1, "host": mine["host"], "since": ""})
    assert not is_gone({})


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_claim_without_a_name_holds_for_a_moment(cache: Path, clock: Clock, content: str) -> None:
    """Its holder was killed before it had written its name: whether it lives cannot be told."""
    (cache / CLAIMS / "000000.json").write_text(content)
    heir = Claims(cache, lease=60, clock=clock)
    assert not heir.take(0)
    clock.now += 1.9
    assert not heir.take(0)
    clock.now += 0.1
    assert heir.take(0)


def test_a_claim_whose_name_comes_late_holds_for_a_lease(cache: Path, clock: Clock) -> None:
    claim, heir = cache / CLAIMS / "000000.json", Claims(cache, lease=60, clock=clock)
    claim.touch()
    assert not heir.take(0)
    clock.now += 1
    claim.write_text(json.dumps(note()))
    os.utime(claim, (5, 5))
    assert not heir.take(0)
    clock.now += 59
    assert not heir.take(0)
    clock.now += 1
    assert heir.take(0)


def test_in_a_cache_that_is_complete_nothing_can_be_claimed(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert not claims.take(0)
    claims.release(0)
    claims.touch()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_is_a_storage_error_that_names_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(30, "read-only")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=re.escape(str(cache))):
        Claims(cache).take(0)
