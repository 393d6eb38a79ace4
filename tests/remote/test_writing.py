"""A cache is written straight to an object store, by any number of processes, with the bytes that one writes to a folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from contracts.calling import succeed
from contracts.failing import Killed
from contracts.killing import Forker, tree
from contracts.object_store import FaultyWay
from contracts.small_cache import SHARD_BYTES, facts, fields, make_manifest, summarize, write

from bancache.cache import Layout, Manifest, remote_claims, remote_opening, remote_writer
from bancache.cache.layout import describe_arrays
from bancache.cache.manifest_io import MANIFEST, read_manifest, sign, unfinished
from bancache.cache.records import record_key
from bancache.cache.remote_opening import open_remote_writer
from bancache.cache.remote_writer import RemoteWriter
from bancache.errors import BusyError, MismatchError, StorageError, UsageError
from bancache.remote.lease import leased
from bancache.system import bucket as buckets
from bancache.system.address import Address, as_place
from bancache.system.bucket import Bucket, Patience
from bancache.system.files import json_bytes
from bancache.system.locks import CLAIMS, HOLDER, note

CHUNK = "q/c/0/1/0"  # of shard 1


@pytest.fixture(autouse=True)
def _several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine, and a listing whenever one is asked for."""
    monkeypatch.setattr(SHARD_BYTES, 200)
    monkeypatch.setattr(remote_writer, "_LIST_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(remote_writer, "_LIST_SHARE", 0.0)
    # Zarr takes a tenth of a second each time, and filters its warnings for one thread at a time.
    known: dict[str, dict[str, bytes]] = {}

    def describe(layout: Layout) -> dict[str, bytes]:
        with one_at_a_time:
            if layout.manifest.fingerprint not in known:
                known[layout.manifest.fingerprint] = describe_arrays(layout)
            return known[layout.manifest.fingerprint]

    one_at_a_time = Lock()
    monkeypatch.setattr(remote_writer, "describe_arrays", describe)


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, bytes]:
    """The files of the same cache, written to a folder."""
    return tree(write(tmp_path / "sound.zarr"))


def objects(address: str) -> dict[str, bytes]:
    store = Bucket(address)
    return {key: store.get(key, info.size) or b"" for key, info in store.listed().items()}


@contextlib.contextmanager
def writing(address: str, manifest: Manifest | None = None, **options: bool) -> Iterator[RemoteWriter]:
    place = as_place(address)
    assert isinstance(place, Address)
    with open_remote_writer(place, manifest or make_manifest(), **options) as writer:
        assert writer is not None
        yield writer


def put(writer: RemoteWriter, *indices: int, add: int = 0) -> None:
    """Write shards; with ``add``, other values than all others write."""
    for index in indices:
        shard = writer.layout.shard(index)
        values = fields(writer.layout.manifest, shard)
        values["q"] += add
        writer.write_shard(shard, values, facts(shard))


def left(writer: RemoteWriter) -> list[int]:
    return [shard.index for shard in writer.pending()]


def fill(address: str, manifest: Manifest | None = None) -> bool:
    """Do what a dump does, in an order of its own; return whether this process completed the cache."""
    place = as_place(address)
    assert isinstance(place, Address)
    with open_remote_writer(place, manifest or make_manifest()) as writer:
        if writer is None:
            return False
        while not writer.is_complete():
            for shard in writer.pending():
                if writer.is_ready(shard) and writer.claims.take(shard.index):
                    put(writer, shard.index)
            if not left(writer) and writer.finish(summarize):
                return True
            time.sleep(0.1)
        return False


@pytest.mark.parametrize("profile", ["default", "compact", "mmap"])
def test_two_fill_one_cache(tmp_path: Path, address: str, profile: str) -> None:
    """Each sees what the other has recorded; either may finish, and one does."""
    manifest = make_manifest(profile=profile)
    sound = tree(write(tmp_path / "sound.zarr", manifest))
    with writing(address, manifest) as one, writing(address, manifest) as other:
        count = one.layout.count
        first = one.layout.blocks  # what others may be stored relative to
        put(one, *range(first))
        put(other, *range(first, count - 1))
        assert left(one) == left(other) == [count - 1]
        assert not other.finish(summarize)
        put(one, count - 1)
        assert not one.is_complete()
        assert other.finish(summarize)
        assert one.is_complete()
        assert not one.finish(summarize)
    assert objects(address) == sound
    with open_remote_writer(Address(as_place(address)), manifest) as writer:
        assert writer is None


@pytest.mark.parametrize("fault", ["unavailable", "reset", "stall", "lost"])
def test_four_workers_behind_faults_write_the_same_bytes(
    tmp_path: Path, address: str, way: FaultyWay, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(num_views=1)
    patience = Patience(total=30.0, pause=0.01)
    if fault == "stall":
        patience = Patience(total=30.0, pause=0.01, read=0.5, request=1.0)
    monkeypatch.setattr(buckets, "PATIENCE", patience)
    way.set(fault, every=30 if fault == "stall" else 5)
    with ThreadPoolExecutor(4) as workers:
        assert any(workers.map(fill, [address] * 4, [manifest] * 4))
    assert way.met >= 3
    way.set("")
    fill(address, manifest)  # a process whose last answer was lost leaves claims to the next one
    assert objects(address) == tree(write(tmp_path / "sound.zarr", manifest))


def test_killed_before_any_change_a_worker_leaves_nothing_half(
    address: str, sound: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker dies after a few more changes than the one before it; the last one finds what all left."""
    monkeypatch.setattr(remote_claims, "LEASE_SECONDS", 0.0)  # they are all of this process, which lives
    real, changes = {name: getattr(Bucket, name) for name in ("_put", "delete")}, 0

    def dying(name: str, self: Bucket, *args: Any) -> Any:
        nonlocal changes
        if changes == 0:
            raise Killed
        changes -= 1
        return real[name](self, *args)

    for lives in range(1, 60, 6):
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(Bucket, name, lambda self, *args, name=name: dying(name, self, *args))
            changes = lives
            with contextlib.suppress(Killed):
                fill(address)
        if MANIFEST in (there := objects(address)) and json.loads(there[MANIFEST])["complete"]:
            break
        for key, content in there.items():
            if key.startswith(".regions/"):
                listed = json.loads(content)["files"]
                assert all(len(there[chunk]) == size for chunk, (size, _) in listed.items())
    fill(address)
    assert objects(address) == sound


def test_other_bytes_that_a_killed_worker_left_are_replaced(address: str, sound: dict[str, bytes]) -> None:
    with writing(address) as writer:
        Bucket(address).put(CHUNK, b"half, or of a machine that rounds otherwise")
        put(writer, *range(9))
        assert writer.finish(summarize)
    assert objects(address) == sound


def test_a_recorded_shard_stays(address: str, sound: dict[str, bytes]) -> None:
    """Though a slower worker computes other last bits."""
    with writing(address) as one, writing(address) as slow:
        put(one, *range(9))
        put(slow, 1, add=1)
        assert one.finish(summarize)
        put(slow, 2, add=1)
    assert objects(address) == sound


def test_a_worker_that_slept_through_the_end_changes_nothing(
    address: str, sound: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped after it had looked for a record and found none."""
    with writing(address) as one, writing(address) as slow:
        complete = slow.is_complete

        def sleep() -> bool:
            monkeypatch.setattr(slow, "is_complete", complete)
            awake = complete()
            put(one, *range(9))
            assert one.finish(summarize)
            return awake

        monkeypatch.setattr(slow, "is_complete", sleep)
        put(slow, 3, add=1)
        assert slow.is_complete()
    assert objects(address) == sound


@pytest.mark.parametrize("wrong", ["replaced", "missing", "record"])
def test_a_false_record_is_found_before_the_end(address: str, sound: dict[str, bytes], wrong: str) -> None:
    store = Bucket(address)
    with writing(address) as writer:
        put(writer, *range(9))
        if wrong == "replaced":
            store.put(CHUNK, b"x")
        elif wrong == "missing":
            store.delete([CHUNK])
        else:
            store.put(".regions/000001.json", b"{}")
        with writing(address) as other:
            assert not other.finish(summarize)
        assert read_manifest(as_place(address))["complete"] is False
        assert left(writer) == [1]
        put(writer, 1)
        assert writer.finish(summarize)
    assert objects(address) == sound


def test_chunks_of_a_shard_that_another_worker_records_meanwhile_stay(
    address: str, sound: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = Bucket.create, list[str]()
    with writing(address) as one, writing(address) as other:

        def late(store: Bucket, key: str, content: bytes) -> str | None:
            if key == CHUNK and not done:
                done.append(key)
                put(one, 1)
            return real(store, key, content)

        monkeypatch.setattr(Bucket, "create", late)
        put(other, 1, add=1)
        assert done
        assert objects(address)[CHUNK] == sound[CHUNK]
        assert 1 not in left(one)


def test_a_record_of_chunks_that_this_worker_has_replaced_is_removed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker put its chunks, then its record; in between, these took their place."""
    real, record = Bucket.create, record_key(1)
    with writing(address) as one, writing(address) as other:
        put(one, 1)
        theirs = objects(address)[record]
        Bucket(address).delete([record])

        def late(store: Bucket, key: str, content: bytes) -> str | None:
            if key == record:
                store.put(key, theirs)
            return real(store, key, content)

        monkeypatch.setattr(Bucket, "create", late)
        put(other, 1, add=1)
        assert record not in objects(address)
        assert 1 in left(one)


def test_shards_relative_to_other_codes_are_written_again(address: str) -> None:
    """View 0 was lost and written with other codes in between: its record is true, the other views' are not."""
    compact = make_manifest(profile="compact")
    with writing(f"{address}/other", compact) as writer:
        put(writer, 0, add=1)
        base = {
            key: objects(f"{address}/other")[key]
            for key in (*writer.layout.chunk_keys(writer.layout.shard(0)), record_key(0))
        }
    with writing(f"{address}/own", compact) as writer:
        put(writer, *range(9))
    for key, content in base.items():
        Bucket(f"{address}/own").put(key, content)
    with writing(f"{address}/own", compact) as writer:
        assert not writer.finish(summarize)
        assert left(writer) == [3, 6]


def test_descriptions_that_were_lost_are_put_again_before_the_end(
    address: str, sound: dict[str, bytes]
) -> None:
    with writing(address) as writer:
        put(writer, *range(9))
        Bucket(address).delete(["zarr.json", "q/zarr.json"])
        assert writer.finish(summarize)
    assert objects(address) == sound


def test_a_manifest_that_another_command_put_meanwhile_stays(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts another cache there while this worker computes its summary."""
    other = make_manifest(teacher={"fingerprint": "a" * 64})
    with writing(address) as writer:
        put(writer, *range(9))

        def late(found: Any) -> dict[str, Any]:
            Bucket(address).put(MANIFEST, json_bytes(unfinished(other)))
            return summarize(found)

        assert not writer.finish(late)
    assert objects(address)[MANIFEST] == json_bytes(unfinished(other))


def test_records_without_tags_are_compared_by_bytes(address: str, sound: dict[str, bytes]) -> None:
    """A pushed cache has such records; a dump goes on with it."""
    store = Bucket(address)
    with writing(address) as writer:
        put(writer, *range(9))
        for key in store.listed(below=".regions"):
            body = {
                k: v
                for k, v in json.loads(store.get(key, 9999) or b"").items()
                if k not in ("tags", "digest")
            }
            store.put(key, json.dumps(sign(body)).encode())
    with writing(address) as other:
        assert other.finish(summarize)
    assert objects(address) == sound


def test_a_shard_is_claimed_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(address) as one, writing(address) as other:
        assert one.claims.take(0)
        assert not one.claims.take(0)
        assert not other.claims.take(0)
        put(one, 0)
        assert not other.claims.take(0)  # it is recorded
        assert one.claims.take(1)
    assert not any(key.startswith(CLAIMS) for key in Bucket(address).listed())


def test_claims_of_the_dead_are_taken_over(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once on this machine, elsewhere when they have not changed for a lease."""
    dead, elsewhere = note() | {"born": 1}, note() | {"machine": "another", "host": "elsewhere"}
    store = Bucket(address)
    with writing(address) as writer:
        store.put(f"{CLAIMS}/000000.json", json.dumps(dead).encode())
        store.put(f"{CLAIMS}/000001.json", json.dumps(elsewhere).encode())
        store.put(f"{CLAIMS}/000002.json", b"[")
        assert writer.claims.take(0)
        assert not writer.claims.take(1)
        assert not writer.claims.take(2)
        store.put(f"{CLAIMS}/000002.json", b"[[")  # it lives
        monkeypatch.setattr(remote_claims, "LEASE_SECONDS", 0.0)
        assert writer.claims.take(1)
        assert not writer.claims.take(2)


def test_a_claim_that_is_touched_is_kept(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(address) as one, writing(address) as other:
        assert one.claims.take(0)
        assert not other.claims.take(0)
        monkeypatch.setattr(remote_claims, "LEASE_SECONDS", 0.0)
        one.claims.touch()
        assert not other.claims.take(0)
        assert other.claims.take(0)  # not touched since
        one.claims.touch()
        one.claims.release(0)
        assert f"{CLAIMS}/000000.json" in Bucket(address).listed()  # it is the other's


def test_other_objects_and_other_caches_are_left_alone(address: str) -> None:
    with (
        writing(address),
        pytest.raises(MismatchError, match=r"views: .*3.*4"),
        writing(address, make_manifest(num_views=4)),
    ):
        pass
    Bucket(f"{address}/below").put("letter", b"from somebody")
    Bucket(address).delete([MANIFEST])
    before = objects(address)
    with pytest.raises(UsageError) as refused, writing(address):
        pass
    assert "--out" in refused.value.hint
    assert objects(address) == before


def test_starting_anew_waits_for_others_and_stops_those_that_come_back(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = make_manifest(num_views=2)
    with writing(address) as one:
        put(one, 0, 1)
        assert one.claims.take(2)
        with pytest.raises(BusyError, match=rf"\b{os.getpid()}\b"), writing(address, smaller, overwrite=True):
            pass
        monkeypatch.setattr(remote_opening, "LEASE_SECONDS", 0.0)
        with writing(address, smaller, overwrite=True) as other:
            assert left(other) == list(range(6))
            with pytest.raises(MismatchError):
                put(one, 2)
            put(other, *range(6))
            assert other.finish(summarize)
    assert objects(address) == tree(write(tmp_path / "smaller.zarr", smaller))


def test_an_address_that_a_push_has_leased_is_left_alone(address: str) -> None:
    with writing(address) as writer:
        put(writer, 0)
    with leased(Bucket(address)), pytest.raises(BusyError), writing(address):
        pass
    assert HOLDER not in Bucket(address).listed()


def test_a_store_that_fails_for_good_is_one_line_and_nothing_is_lost(
    address: str, way: FaultyWay, sound: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PATIENCE", Patience(total=0.1, pause=0.02))
    with writing(address) as writer:
        put(writer, 0, 1)
        way.set("unavailable")
        with pytest.raises(StorageError, match=address):
            put(writer, 2)
        way.set("")
    with writing(address) as writer:
        assert left(writer) == list(range(2, 9))
    fill(address)
    assert objects(address) == sound


def dump_args(teacher: Path, out: str | Path, *more: str) -> list[str]:
    return [
        "dump",
        "--teacher",
        str(teacher),
        "--out",
        str(out),
        "--num-views",
        "6",
        "--batch-size",
        "8",
        "-q",
        *more,
    ]


def test_a_dump_to_an_address_is_the_dump_to_a_folder(
    tmp_path: Path, teacher_path: Path, address: str
) -> None:
    here = tmp_path / "gen0.zarr"
    told = succeed(*dump_args(teacher_path, here))
    said = succeed(*dump_args(teacher_path, address))
    assert objects(address) == tree(here)
    same = ("bytes", "digest", "fidelity", "views")
    assert [said[key] for key in same] == [told[key] for key in same]
    assert said["out"] == address
    assert any("complete" in note for note in succeed(*dump_args(teacher_path, address)[:-1])["notes"])
    store, before = Bucket(address), objects(address)
    store.put("q/c/3/0/0", b"x")
    store.delete(["q/c/1/0/0", "q/zarr.json"])
    assert succeed("repair", address, "--teacher", teacher_path, "-q")["files"] == 3
    assert objects(address) == before
    assert succeed("train-student", "--cache", address, "--epochs", "1", "--out", tmp_path / "gen1.pt")[
        "trained"
    ]


def test_workers_that_are_killed_leave_their_work_to_the_others(
    tmp_path: Path, forker: Forker, teacher_path: Path, address: str
) -> None:
    here = tmp_path / "gen0.zarr"
    assert forker.run(dump_args(teacher_path, here))[0] == 0  # with shards as large as in the workers
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    command = dump_args(teacher_path, address, "--join")

    def begun(count: int) -> bool:
        return sum(key.startswith((".regions/", "q/c/")) for key in Bucket(address).listed()) >= count

    ends = forker.run_together(
        [command] * 3,
        signals=[(partial(begun, 1), 0, signal.SIGKILL), (partial(begun, 4), 1, signal.SIGKILL)],
        environments=[{**environment, "RANK": str(rank), "WORLD_SIZE": "3"} for rank in range(3)],
    )
    assert ends[2][0] == 0, ends[2][1]
    assert objects(address) == tree(here)
