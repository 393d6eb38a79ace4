"""One process writes to an address; the dead are told from the living by the store's clock, not by ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contracts.small_cache import write

from bancache.errors import BusyError, StorageError
from bancache.remote.bucket import Bucket
from bancache.remote.hold import held
from bancache.remote.push import push
from bancache.system.locks import HOLDER, note


def say(address: str, **changes: Any) -> None:
    """Leave the note of another process at an address."""
    about = note() | {"pid": 123, "host": "elsewhere", "machine": "another", "token": "0"} | changes
    Bucket(address).put(HOLDER, json.dumps(about).encode())


def test_a_second_writer_is_told_who_is_there_and_since_when(tmp_path: Path, address: str) -> None:
    cache = write(tmp_path / "gen0.zarr")
    with (
        held(Bucket(address)),
        pytest.raises(BusyError, match=rf"{address} is in use by pid \d+ on .* since 20") as busy,
    ):
        push(cache, Bucket(address))
    assert busy.value.exit_code == 5
    push(cache, Bucket(address))
    assert HOLDER not in Bucket(address).listed()


def test_a_dead_process_of_this_machine_is_no_obstacle(address: str) -> None:
    say(address, pid=note()["pid"], machine=note()["machine"], born=1)
    with held(Bucket(address)):
        assert b"elsewhere" not in (Bucket(address).get(HOLDER, 4096) or b"")


def test_a_process_elsewhere_is_an_obstacle_for_a_lease_of_the_stores_time(address: str) -> None:
    say(address)
    with pytest.raises(BusyError, match="pid 123 on elsewhere"), held(Bucket(address), lease=3600.0):
        pass
    with held(Bucket(address), lease=0.0):
        assert b"elsewhere" not in (Bucket(address).get(HOLDER, 4096) or b"")
    assert [key for key in Bucket(address).listed() if key.startswith(HOLDER)] == []


def test_of_two_that_come_to_take_it_over_one_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(address)

    def age(*arguments: Any) -> float:
        say(address, pid=124, token="1")  # the other was faster, after both had looked
        return 3600.0

    monkeypatch.setattr("bancache.remote.hold._age", age)
    with pytest.raises(BusyError, match="is in use by pid"), held(Bucket(address)):
        pass
    assert b'"pid": 124' in (Bucket(address).get(HOLDER, 4096) or b"")


def test_a_note_that_is_nonsense_is_one_of_somebody_alive(address: str) -> None:
    Bucket(address).put(HOLDER, b"[" * 3000)
    with pytest.raises(BusyError, match="in use by another process"), held(Bucket(address)):
        pass


def test_who_shows_that_he_lives_keeps_it_and_who_lost_it_stops(address: str) -> None:
    with held(Bucket(address)) as hold:
        before = Bucket(address).look(HOLDER)
        hold.show()
        after = Bucket(address).look(HOLDER)
        assert before is not None
        assert after is not None
        assert before.tag != after.tag
        hold.require()
        say(address)
        hold.show()
        with pytest.raises(BusyError, match="was taken over by another process"):
            hold.require()
    assert b"elsewhere" in (Bucket(address).get(HOLDER, 4096) or b"")


def test_who_finds_nothing_to_show_it_with_lost_it(address: str) -> None:
    with held(Bucket(address)) as hold:
        Bucket(address).delete([HOLDER])
        hold.show()
        with pytest.raises(BusyError, match="was taken over by another process"):
            hold.require()
    assert HOLDER not in Bucket(address).listed()


def test_who_cannot_show_it_for_half_a_lease_stops(address: str) -> None:
    with held(Bucket(address), lease=1e-9) as hold, pytest.raises(StorageError, match="could not be told"):
        hold.require()


def test_the_thread_shows_it_by_itself(address: str) -> None:
    with held(Bucket(address), lease=0.4) as hold:
        first = Bucket(address).look(HOLDER)
        for _ in range(1000):
            now = Bucket(address).look(HOLDER)
            if now != first:
                break
        assert now != first
        assert hold is not None


def test_an_answer_that_was_lost_is_not_taken_for_somebody_else(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store did what it was asked and the answer was lost: the second attempt finds what the first left."""
    bucket = Bucket(address)
    bucket.put("a", b"mine")
    assert bucket.create("a", b"mine") is not None
    assert bucket.create("a", b"theirs") is None
    there = bucket.look("a")
    assert there is not None
    bucket.put("a", b"newer")
    assert bucket.replace("a", b"newer", there.tag) is not None
    assert bucket.replace("a", b"other", there.tag) is None
    assert bucket.replace("gone", b"other", there.tag) is None
    assert bucket.get("gone", 100) is None
