"""A disk that is full, read-only or failing: one error that says so, what was done is kept, then it goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.disks import Mount
from contracts.failing import fail_at
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES, Q, check_view, facts, fields, make_manifest, write

from bancache.cache.opening import open_writer
from bancache.encodings.fields import FieldSpec
from bancache.errors import StorageError

SMALL = make_manifest(samples=28, num_views=1, fields=(Q,))
# Random bytes do not compress: each view is about a megabyte.
LARGE = make_manifest(samples=2000, num_views=6, fields=(FieldSpec("q", "uint8", (700,), ("class",)),))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("number", "stride"), [(errno.ENOSPC, 1), (errno.EROFS, 5), (errno.EIO, 4)])
def test_any_call_may_fail_and_what_was_recorded_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stride: int
) -> None:
    """The n-th flush, rename, new folder or removal fails, for n = 1, 2, 3, ... until all succeed."""
    expected = tree(write(tmp_path / "plain.zarr", SMALL))
    for call in range(1, 300, stride):
        path = tmp_path / f"{call}.zarr"
        with monkeypatch.context() as patch:
            made = fail_at(patch, call, lambda: OSError(number, os.strerror(number)))
            error = _attempt(path)
        if len(made) < call:
            break
        if error is None:
            # Making a folder that is there, and removing the writer's note, which means nothing without its lock.
            assert made[call - 1] == "mkdir" or (made[-1], len(made)) == ("unlink", call)
        else:
            assert os.strerror(number).lower() in str(error)
            assert str(path) in str(error)
        done = {file: file.read_bytes() for file in path.glob("*/c/**/*") if file.is_file()}
        recorded = len(list(path.glob(".regions/*.json")))
        assert not list(path.rglob("*.partial"))
        with open_writer(path, SMALL) as writer:
            if writer is not None:
                assert len(writer.pending()) <= 2 - recorded
        write(path, SMALL)
        assert tree(path) == expected
        assert all(file.read_bytes() == content for file, content in done.items())
    assert call > 40


def _attempt(path: Path) -> StorageError | None:
    try:
        write(path, SMALL)
    except StorageError as error:
        return error
    return None


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    try:
        made = Mount(tmp_path / "mount")
    except OSError as refused:
        pytest.skip(f"needs the right to mount: {refused}")
    yield made
    made.close()


def test_a_full_disk_keeps_what_was_done_and_goes_on_once_there_is_room(tmp_path: Path, mount: Mount) -> None:
    expected = tree(write(tmp_path / "plain.zarr", LARGE))
    path = mount.path / "a.zarr"
    with pytest.raises(StorageError, match=r"a\.zarr"):
        write(path, LARGE)
    with open_writer(path, LARGE) as writer:
        assert writer is not None
        assert [shard.index for shard in writer.pending()] == [3, 4, 5]
    for view_index in range(3):
        assert (path / f"q/c/{view_index}/0/0").read_bytes() == expected[f"q/c/{view_index}/0/0"]
    assert not list(path.rglob("*.partial"))
    with pytest.raises(StorageError):
        write(path, LARGE)
    mount.change("size=16m")
    assert tree(write(path, LARGE)) == expected


def _fill(path: Path) -> None:
    """Take what room there is, to the last page."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_disk_without_room_for_the_last_manifest_keeps_the_first(tmp_path: Path, mount: Mount) -> None:
    """The cache stays unfinished, and whole as far as it goes."""
    small = make_manifest(samples=2000, num_views=1)
    path = mount.path / "a.zarr"
    with open_writer(path, small) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(shard, fields(small, shard), facts(shard))
        _fill(mount.path / "filler")
        with pytest.raises(StorageError, match=r"manifest\.json"):
            writer.finish(lambda found: {"rows": len(found)})
    (mount.path / "filler").unlink()
    with open_writer(path, small) as writer:
        assert writer is not None
        assert writer.pending() == []
        writer.finish(lambda found: {"rows": len(found)})
    check_view(path, 0, small)


def test_a_read_only_disk_is_refused_for_writing_and_good_for_reading(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SHARD_BYTES, 200)
    write(mount.path / "done.zarr")
    mount.change("ro")
    check_view(mount.path / "done.zarr", 1)
    for name in ("done.zarr", "new.zarr"):
        with pytest.raises(StorageError, match=name):
            write(mount.path / name)
