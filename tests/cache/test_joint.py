"""Several writers fill one cache; whatever one of them does, the result is that of a single one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.powercut import Disk
from contracts.small_cache import SHARD_BYTES, Q, check_view, facts, fields, make_manifest, summarize, write

from bancache.cache import Manifest
from bancache.cache.directory import flush_folders
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.views import encode_shard
from bancache.cache.writer import CacheWriter
from bancache.errors import BusyError, CacheDamagedError, MismatchError, UsageError
from bancache.system.locks import exclusive, shared

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def undisturbed(sound: Path) -> dict[str, bytes]:
    return tree(sound)


@contextlib.contextmanager
def writing(path: Path, manifest: Manifest | None = None, *, join: bool = True) -> Iterator[CacheWriter]:
    with open_writer(path, manifest or make_manifest(), join=join) as writer:
        assert writer is not None
        yield writer


def put(writer: CacheWriter, *indices: int) -> None:
    for index in indices:
        shard = writer.layout.shard(index)
        writer.write_shard(shard, fields(writer.layout.manifest, shard), facts(shard))


def left(writer: CacheWriter) -> list[int]:
    return [shard.index for shard in writer.pending()]


def test_no_process_finishes_while_another_one_joins(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that joins has seen an unfinished cache, and would put its folders into a complete one."""
    with writing(tmp_path / "a.zarr") as one:
        put(one, *range(9))
        tried = list[bool]()

        def meanwhile(path: Path) -> None:
            tried.append(one.finish(summarize))
            flush_folders(path)

        monkeypatch.setattr("bancache.cache.opening.flush_folders", meanwhile)
        with writing(tmp_path / "a.zarr") as other:
            assert tried == [False]
            assert other.finish(summarize)
    assert tree(tmp_path / "a.zarr") == undisturbed


@pytest.mark.parametrize("first_joins", [False, True])
def test_two_fill_one_cache(tmp_path: Path, undisturbed: dict[str, bytes], first_joins: bool) -> None:
    """Each sees what the other has recorded; either may finish, and one does."""
    path = tmp_path / "a.zarr"
    with writing(path, join=first_joins) as one, writing(path) as other:
        put(one, 0, 2, 4)
        put(other, 1, 3)
        assert left(one) == left(other) == [5, 6, 7, 8]
        put(other, 5, 6)
        put(one, 7, 8)
        assert left(other) == []
        assert not one.is_complete()
        assert other.finish(summarize)
        assert one.is_complete()
        assert not one.finish(summarize)
    assert tree(path) == undisturbed


def test_a_process_that_joins_a_complete_cache_has_nothing_to_do(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write(tmp_path / "a.zarr")
    for _ in range(2):
        with open_writer(path, make_manifest(), join=True) as writer:
            assert writer is None
        (path / ".claims").mkdir()
        (path / ".claims" / "lock").touch()
        (path / "q" / "zarr.json.12345678.partial").write_text("half")
    with open_writer(path, make_manifest(), join=True) as writer:
        assert writer is None
    assert tree(path) == undisturbed


def test_a_process_that_does_not_join_is_refused_while_others_work(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with writing(path) as one:
        assert one.claims.take(0)
        said = rf"a\.zarr .*\b{os.getpid()}\b"
        for overwrite in (False, True):
            with (
                pytest.raises(BusyError, match=said) as caught,
                open_writer(path, make_manifest(), overwrite=overwrite),
            ):
                pass
            assert "--join" in caught.value.hint
        put(one, *range(9))
        one.finish(summarize)
    check_view(path, 1)


def test_a_process_that_joins_is_refused_by_one_that_will_not_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a repair."""
    monkeypatch.setattr("bancache.system.locks._GRACE_SECONDS", 0.1)
    path = tmp_path / "a.zarr"
    path.mkdir()
    with (
        exclusive(path),
        pytest.raises(BusyError, match=rf"\b{os.getpid()}\b"),
        open_writer(path, make_manifest(), join=True),
    ):
        pass


def test_a_shared_folder_cannot_be_locked_exclusively(tmp_path: Path) -> None:
    with shared(tmp_path), shared(tmp_path), pytest.raises(BusyError), exclusive(tmp_path):
        pass
    with exclusive(tmp_path) as share:
        share()
        with shared(tmp_path), pytest.raises(BusyError), exclusive(tmp_path):
            pass


def test_a_process_that_joins_cannot_overwrite_and_must_have_the_same_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with writing(path):
        joining = open_writer(path, make_manifest(), join=True, overwrite=True)
        with pytest.raises(UsageError), joining:
            pass
        joining = open_writer(path, make_manifest(num_views=4), join=True)
        with pytest.raises(MismatchError, match=r"views: .*3.*4"), joining:
            pass


def test_a_folder_with_other_files_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError), open_writer(tmp_path, make_manifest(), join=True):
        pass
    assert tree(tmp_path) == {"thesis.tex": b"mine"}


def test_a_shard_that_two_did_stays_the_first_ones(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Claims may be lost: even if the second process has other bytes, it only worked in vain."""
    path = tmp_path / "a.zarr"
    with writing(path) as one, writing(path) as other:
        shard = one.layout.shard(3)
        strange = {name: array[::-1].copy() for name, array in fields(make_manifest(), shard).items()}
        assert one.claims.take(3)
        put(one, *range(9))
        other.write_shard(shard, strange, {"rows": 0, "third": 0.0})
        assert other.finish(summarize)
        other.write_shard(shard, strange, {"rows": 0, "third": 0.0})
        one.write_shard(shard, strange, {"rows": 0, "third": 0.0})
    assert tree(path) == undisturbed


def test_a_shard_that_two_wrote_at_the_same_instant_is_read_before_the_cache_is_complete(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that differ in a last bit, both between looking and recording: files of one, record of the other."""
    path = tmp_path / "a.zarr"
    with writing(path) as one, writing(path) as other:
        put(one, *(index for index in range(9) if index != 3))
        shard = one.layout.shard(3)
        strange = {name: array[::-1].copy() for name, array in fields(make_manifest(), shard).items()}
        put(one, 3)
        kept = (path / ".regions" / "000003.json").read_bytes()
        (path / ".regions" / "000003.json").unlink()  # as `other` saw it, when it looked
        other.write_shard(shard, strange, {"rows": 14, "third": 0.0})
        (path / ".regions" / "000003.json").write_bytes(kept)  # `one` records last
        assert not one.finish(summarize)
        assert left(one) == [3]
        with pytest.raises(CacheDamagedError, match="1 shard"):
            one.finish(summarize)
        put(one, 3)
        assert one.finish(summarize)
    assert tree(path) == undisturbed
    check_view(path, 1)


def test_shards_that_others_recorded_are_read_before_the_cache_is_complete(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = tmp_path / "a.zarr"
    with writing(path) as one, writing(path) as other:
        put(one, 0, 1, 2, 3)
        put(other, 4, 5, 6, 7, 8)
        (path / "q" / "c" / "0" / "1" / "0").write_bytes(b"rotten")
        assert not other.finish(summarize)
        assert left(other) == [1]
        put(other, 1)
        assert other.finish(summarize)
    assert tree(path) == undisturbed


def test_a_writers_own_shards_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    with writing(path, join=False) as alone:
        put(alone, *range(9))
        monkeypatch.setattr("bancache.cache.records.inspect_file", None)  # not callable
        assert alone.finish(summarize)


def test_a_writers_own_file_that_was_changed_in_place_is_read_again(tmp_path: Path) -> None:
    with writing(tmp_path / "a.zarr") as one:
        put(one, *range(9))
        file = tmp_path / "a.zarr/q/c/1/0/0"
        written = file.stat().st_mtime_ns
        with file.open("r+b") as stream:
            stream.write(bytes([stream.read(1)[0] ^ 1]))
        os.utime(file, ns=(written, written + 1))
        assert not one.finish(summarize)
        assert left(one) == [3]


def test_no_process_finishes_while_a_shard_is_written(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    with writing(path) as one, writing(path) as other:
        put(one, *range(9))
        shard = one.layout.shard(8)
        (path / ".regions" / "000008.json").unlink()
        said: list[bool] = []

        def watched(*args: Any) -> Any:
            said.append(one.finish(summarize))
            return encode_shard(*args)

        monkeypatch.setattr("bancache.cache.writer.encode_shard", watched)
        other.write_shard(shard, fields(make_manifest(), shard), facts(shard))
        assert said == [False]
        assert other.finish(summarize)
    assert tree(path) == undisturbed


def test_however_others_die_the_rest_goes_on(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each durable call in turn, with another at work who then does everything."""
    for number in range(1, 400, 4):
        path = tmp_path / f"{number}.zarr"
        with writing(path) as survivor:
            put(survivor, 4)
            with monkeypatch.context() as patch, contextlib.suppress(Killed):
                made = fail_at(patch, number, Killed)
                with writing(path, join=True) as other:
                    put(other, 0, 1)
                    put(other, *left(other))
                    other.finish(summarize)
            if not survivor.is_complete():
                put(survivor, *left(survivor))
                assert survivor.finish(summarize)
        assert tree(write(path)) == undisturbed
        if len(made) < number:
            break
    assert number > 60


def test_a_power_cut_takes_no_shard_in_a_folder_that_another_process_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One makes a folder and dies before it is flushed; the other puts a shard there and acknowledges it."""
    monkeypatch.setattr(SHARD_BYTES, 15)
    manifest = make_manifest(samples=2, num_views=2, fields=(Q,))
    expected = tree(write(tmp_path / "plain.zarr", manifest))
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    for number in range(1, 40):
        path = tmp_path / "disk" / f"{number}.zarr"
        with writing(path, manifest) as one, writing(path, manifest) as other:
            with monkeypatch.context() as patch, contextlib.suppress(Killed):
                made = fail_at(patch, number, Killed)
                put(one, 1)
            put(other, 1)
            cut = disk.restore(disk.state(), tmp_path / f"after-{number}") / path.name
            with writing(cut, manifest, join=False) as again:
                assert left(again) == [0, 2, 3]
                put(again, 0, 2, 3)
                assert again.finish(summarize)
            assert tree(cut) == expected
        if len(made) < number:
            break
    disk.close()
    assert number > 10


def test_a_shard_waits_for_the_shard_that_it_is_stored_relative_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bancache.cache.layout.Layout.requires",
        lambda self, shard: self.shard(shard.block) if shard.view_index else None,
    )
    with writing(tmp_path / "a.zarr") as one, writing(tmp_path / "a.zarr") as other:
        assert one.is_ready(one.layout.shard(1))
        assert not one.is_ready(one.layout.shard(4))
        put(other, 1)
        assert one.is_ready(one.layout.shard(4))
        assert not one.is_ready(one.layout.shard(5))


def test_readers_see_nothing_before_the_end(tmp_path: Path) -> None:
    with writing(tmp_path / "a.zarr") as one, writing(tmp_path / "a.zarr") as other:
        put(one, *range(8))
        put(other, 8)
        with pytest.raises(CacheDamagedError, match="9 of 9 "):
            open_cache(tmp_path / "a.zarr")


def test_a_workers_shard_is_read_if_its_files_have_other_sizes_than_it_recorded(tmp_path: Path) -> None:
    """A worker's word saves reading its files, as long as they look as it says."""
    with writing(tmp_path / "a.zarr") as command, writing(tmp_path / "a.zarr") as worker:
        put(worker, *range(9))
        with (tmp_path / "a.zarr/q/c/1/0/0").open("ab") as stream:
            stream.write(b"?")
        assert all(command.trust(shard) for shard in command.layout.shards())
        assert not command.finish(summarize)
        assert left(command) == [3]
