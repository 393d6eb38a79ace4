"""One process writes to an address; a dead one is recognized by the store's clock, not by the local one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from contracts.small_cache import write

from bancache.errors import BusyError, StorageError
from bancache.remote.lease import leased
from bancache.remote.push import push
from bancache.system.bucket import Bucket
from bancache.system.locks import HOLDER, note


def say(address: str, **changes: Any) -> None:
    """Leave the note of another process at an address."""
    about = note() | {"pid": 123, "host": "elsewhere", "machine": "another", "token": "0"} | changes
    Bucket(address).put(HOLDER, json.dumps(about).encode())


def test_a_second_writer_is_told_which_process_writes_and_since_when(tmp_path: Path, address: str) -> None:
    cache = write(tmp_path / "gen0.zarr")
    with (
        leased(Bucket(address)),
        pytest.raises(BusyError, match=rf"{address} .*\b{os.getpid()}\b.* 20\d\d-") as busy,
    ):
        push(cache, Bucket(address))
    assert busy.value.exit_code == 5
    push(cache, Bucket(address))
    assert HOLDER not in Bucket(address).listed()


def test_a_dead_process_of_this_machine_is_no_obstacle(address: str) -> None:
    say(address, pid=note()["pid"], machine=note()["machine"], born=1)
    with leased(Bucket(address)):
        assert b"elsewhere" not in (Bucket(address).get(HOLDER, 4096) or b"")


def test_a_process_elsewhere_is_an_obstacle_for_a_lease_of_the_stores_time(address: str) -> None:
    say(address)
    with pytest.raises(BusyError, match=r"\b123\b.* elsewhere"), leased(Bucket(address), seconds=3600.0):
        pass
    with leased(Bucket(address), seconds=0.0):
        assert b"elsewhere" not in (Bucket(address).get(HOLDER, 4096) or b"")
    assert [key for key in Bucket(address).listed() if key.startswith(HOLDER)] == []


def test_of_two_that_take_an_address_over_one_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(address)

    def age(*arguments: Any) -> float:
        say(address, pid=124, token="1")  # the other was faster, after both had looked
        return 3600.0

    monkeypatch.setattr("bancache.remote.lease.seconds_unchanged", age)
    with pytest.raises(BusyError, match=address), leased(Bucket(address)):
        pass
    assert b'"pid": 124' in (Bucket(address).get(HOLDER, 4096) or b"")


def test_a_note_that_cannot_be_read_counts_as_a_living_process(address: str) -> None:
    Bucket(address).put(HOLDER, b"[" * 3000)
    with pytest.raises(BusyError, match=address), leased(Bucket(address)):
        pass


def test_a_renewed_lease_is_kept_and_a_lost_one_stops_its_process(address: str) -> None:
    with leased(Bucket(address)) as lease:
        before = Bucket(address).head(HOLDER)
        lease.renew()
        after = Bucket(address).head(HOLDER)
        assert before is not None
        assert after is not None
        assert before.tag != after.tag
        lease.require()
        say(address)
        lease.renew()
        with pytest.raises(BusyError, match=address):
            lease.require()
    assert b"elsewhere" in (Bucket(address).get(HOLDER, 4096) or b"")


def test_a_lease_whose_note_is_gone_is_lost(address: str) -> None:
    with leased(Bucket(address)) as lease:
        Bucket(address).delete([HOLDER])
        lease.renew()
        with pytest.raises(BusyError, match=address):
            lease.require()
    assert HOLDER not in Bucket(address).listed()


def test_a_lease_that_was_not_renewed_for_half_its_time_stops_its_process(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leased(Bucket(address), seconds=100) as lease:
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 45)
        lease.require()
        monkeypatch.setattr(time, "monotonic", lambda: now + 50)
        with pytest.raises(StorageError, match=address):
            lease.require()


def test_a_thread_renews_the_lease(address: str) -> None:
    with leased(Bucket(address), seconds=0.4) as lease:
        first = Bucket(address).head(HOLDER)
        for _ in range(1000):
            now = Bucket(address).head(HOLDER)
            if now != first:
                break
        assert now != first
        assert lease is not None


def test_a_lost_response_is_not_mistaken_for_another_process(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store did what it was told and the response was lost: the second request finds the first one's object."""
    bucket = Bucket(address)
    bucket.put("a", b"mine")
    assert bucket.create("a", b"mine") is not None
    assert bucket.create("a", b"theirs") is None
    there = bucket.head("a")
    assert there is not None
    bucket.put("a", b"newer")
    assert bucket.replace("a", b"newer", there.tag) is not None
    assert bucket.replace("a", b"other", there.tag) is None
    assert bucket.replace("gone", b"other", there.tag) is None
    assert bucket.get("gone", 100) is None
