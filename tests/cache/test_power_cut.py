"""What was acknowledged survives a power cut at any flush, also of a disk that keeps nothing it need not keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.powercut import Disk
from contracts.small_cache import SHARD_BYTES, Q, facts, fields, make_manifest, summarize, write

from bancache.cache import Manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.errors import MismatchError

MANIFEST = make_manifest(samples=3, num_views=1, fields=(Q,))


@pytest.fixture(autouse=True)
def _tiny_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, 15)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    watched = Disk(tmp_path / "disk", monkeypatch)
    yield watched
    watched.close()


def pending(path: Path, manifest: Manifest) -> set[int]:
    with open_writer(path, manifest) as writer:
        return set() if writer is None else {shard.index for shard in writer.pending()}


@pytest.mark.parametrize("shard_samples", [None, 2])
def test_no_acknowledged_shard_is_lost(tmp_path: Path, disk: Disk, shard_samples: int | None) -> None:
    manifest = replace(MANIFEST, shard_samples=shard_samples)
    expected = tree(write(tmp_path / "plain.zarr", manifest))
    disk.states = []
    acknowledged: list[tuple[int, int]] = []  # flushes so far, shard
    with open_writer(tmp_path / "disk" / "a.zarr", manifest) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(shard, fields(manifest, shard), facts(shard))
            acknowledged.append((len(disk.states), shard.index))
        writer.finish(summarize)
        finished = len(disk.states)
    states = list(disk.states)
    assert len(states) > 20
    for number, state in enumerate(states, 1):
        path = disk.restore(state, tmp_path / f"after-{number}") / "a.zarr"
        assert not pending(path, manifest) & {index for before, index in acknowledged if before <= number}
        if number >= finished:
            assert open_cache(path).read_view(0)
        assert tree(write(path, manifest)) == expected
    assert {index for _, index in acknowledged} == {0, 1}


@pytest.mark.parametrize("join", [False, True])
def test_a_cache_finished_after_a_kill_survives(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, join: bool
) -> None:
    """The second writer must not build on what the first one made and did not flush."""
    expected = tree(write(tmp_path / "plain.zarr", MANIFEST))
    for number in range(1, 300):
        path = tmp_path / "disk" / f"{number}.zarr"
        with monkeypatch.context() as patch:
            fail_at(patch, number, Killed)
            try:
                write(path, MANIFEST)
                break
            except Killed:
                pass
        write(path, MANIFEST, join=join)
        left = disk.restore(disk.state(), tmp_path / f"after-{number}") / path.name
        assert pending(left, MANIFEST) == set()
        assert tree(left) == expected
    assert number > 35


def test_overwriting_never_takes_the_old_for_the_new(tmp_path: Path, disk: Disk) -> None:
    old = make_manifest(samples=3, num_views=1, fields=(Q,), teacher={"fingerprint": "0" * 64})
    expected = tree(write(tmp_path / "plain.zarr", MANIFEST))
    path = write(tmp_path / "disk" / "a.zarr", old)
    disk.states = []
    write(path, MANIFEST, overwrite=True)
    for number, state in enumerate(list(disk.states)):
        one = disk.restore(state, tmp_path / f"one-{number}") / "a.zarr"
        assert tree(write(one, MANIFEST, overwrite=True)) == expected
        other = disk.restore(state, tmp_path / f"other-{number}") / "a.zarr"
        assert _continued(other) in (expected, "made with another teacher")


def _continued(path: Path) -> dict[str, bytes] | str:
    try:
        return tree(write(path, MANIFEST))
    except MismatchError:
        return "made with another teacher"


def test_a_cache_survives_in_folders_that_it_made(tmp_path: Path, disk: Disk) -> None:
    """Each is a name in the one above it, which has to be flushed, too."""
    write(tmp_path / "disk" / "runs" / "x" / "a.zarr", MANIFEST)
    left = disk.restore(disk.state(), tmp_path / "after")
    assert open_cache(left / "runs" / "x" / "a.zarr").read_view(0)
