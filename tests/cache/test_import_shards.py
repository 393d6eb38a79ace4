"""Shards are imported from another cache: only intact ones, and a process killed at any instant goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from contracts.damage import DAMAGES
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.powercut import Disk
from contracts.small_cache import Q, facts, fields, manifest, write, write_some

from bancache.cache.import_shards import import_shards, recorded_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError, MismatchError
from bancache.system.files import sync_directory

SMALL = manifest(samples=3, num_views=1, fields=(Q,))
LARGE = manifest(samples=3, num_views=2, fields=(Q,))


def extend(old: Path, new: Path) -> None:
    """Make a cache of two views out of one, as an extension does, with arrays in the place of a teacher."""
    shards = {shard.index: facts(shard) for shard in Layout(SMALL).shards()}
    import_shards(new, LARGE, shards_of(open_cache(old), shards))
    write(new, LARGE)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    return tree(write(tmp_path / "plain.zarr", LARGE))


def test_killed_before_any_call_it_leaves_the_old_cache_as_it_was_and_goes_on(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "old.zarr", SMALL)
    before = tree(old)
    for call in range(1, 400):
        new = tmp_path / str(call) / "a.zarr"
        with monkeypatch.context() as patch:
            fail_at(patch, call, Killed)
            try:
                extend(old, new)
                break
            except Killed:
                pass
        assert tree(old) == before
        extend(old, new)
        assert tree(new) == expected
    assert call > 40
    assert tree(new) == expected


def test_after_any_power_cut_it_goes_on(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that keeps nothing that it need not keep."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    old = write(tmp_path / "disk" / "old.zarr", SMALL)
    sync_directory(old)  # a cut may bring back its working files, which were removed without a flush
    before = tree(old)
    disk.states = []
    extend(old, tmp_path / "disk" / "a.zarr")
    states = list(disk.states)
    assert len(states) > 20
    for number, state in enumerate(states):
        folder = disk.restore(state, tmp_path / f"after-{number}")
        # The removal of the old cache's records need not be durable; its files are.
        assert before.items() <= tree(folder / "old.zarr").items()
        extend(folder / "old.zarr", folder / "a.zarr")
        assert tree(folder / "a.zarr") == expected
    disk.close()


@pytest.mark.parametrize("way", sorted(set(DAMAGES) - {"swapped"}))
def test_a_damaged_shard_is_not_imported(tmp_path: Path, small_shards: None, way: str) -> None:
    cache = open_cache(write(tmp_path / "a.zarr"))
    DAMAGES[way](cache.path / "q/c/1/0/0", cache.path / "q/c/1/1/0")
    own = {shard.index: facts(shard) for shard in Layout(cache.manifest).shards()}
    with pytest.raises(CacheDamagedError, match=r"shard 3 \(view 1, samples 0 to 13\)"):
        import_shards(tmp_path / "b.zarr", replace(cache.manifest, num_views=5), shards_of(cache, own))


def test_a_shard_that_was_damaged_since_it_was_imported_is_imported_again(
    tmp_path: Path, small_shards: None
) -> None:
    cache = open_cache(write(tmp_path / "a.zarr"))
    shards = shards_of(cache, {shard.index: facts(shard) for shard in Layout(cache.manifest).shards()})
    import_shards(tmp_path / "b.zarr", cache.manifest, {i: shards[i] for i in range(5)})
    damaged = tmp_path / "b.zarr" / "q/c/1/0/0"
    content = bytearray(damaged.read_bytes())
    content[7] ^= 1
    damaged.unlink()  # its other name is that of the cache it came from
    damaged.write_bytes(content)
    import_shards(tmp_path / "b.zarr", cache.manifest, shards, summarize=lambda _: cache.summary)
    assert tree(tmp_path / "b.zarr") == tree(cache.path)


def test_only_missing_shards_are_imported(tmp_path: Path, small_shards: None) -> None:
    """A cache with another manifest is refused; one that has shards of its own keeps them."""
    cache = open_cache(write(tmp_path / "a.zarr"))
    own = {shard.index: facts(shard) for shard in Layout(cache.manifest).shards()}
    path = write_some(tmp_path / "b.zarr", [0, 4])
    import_shards(path, cache.manifest, shards_of(cache, own))
    shared = [index for index in own if (path / f"q/c/{index // 3}/{index % 3}/0").stat().st_nlink == 2]
    assert shared == [1, 2, 3, 5, 6, 7, 8]
    assert tree(write(path)) == tree(cache.path)
    with pytest.raises(MismatchError, match=r"\b3\b.*\b5\b"):
        import_shards(path, replace(cache.manifest, num_views=5), shards_of(cache, own))


def test_only_records_of_the_same_manifest_are_read(tmp_path: Path, small_shards: None) -> None:
    path = write_some(tmp_path / "a.zarr", [1, 5, 7])
    (path / ".regions" / "000005.json").write_text("{")
    shutil.copy(path / ".regions" / "000007.json", path / ".regions" / "000008.json")
    found = recorded_shards(path, manifest())
    assert sorted(found) == [1, 7]
    assert found[1].facts == facts(Layout(manifest()).shard(1))
    assert [shard.problem() for shard in found.values()] == [None, None]
    assert recorded_shards(path, manifest(created_with={"bancache": "9"})) == {}


def test_files_that_nobody_flushed_survive_a_power_cut_once_they_are_imported(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old cache may be a copy that another program made."""
    (tmp_path / "disk").mkdir()
    old = write(tmp_path / "disk" / "old.zarr", SMALL)  # before the disk counts flushes
    disk = Disk(tmp_path / "disk", monkeypatch)
    extend(old, tmp_path / "disk" / "a.zarr")
    left = disk.restore(disk.state(), tmp_path / "after")
    assert expected.items() <= tree(left / "a.zarr").items()
    disk.close()


def test_a_shard_is_not_imported_beside_other_codes_than_it_is_stored_relative_to(
    tmp_path: Path, small_shards: None
) -> None:
    """It would be read as values that no teacher gave, under digests that hold."""
    compact = manifest(profile="compact")
    one, other = write_some(tmp_path / "a.zarr", [0, 3], compact), tmp_path / "b.zarr"
    with open_writer(other, compact) as writer:
        assert writer is not None
        first = writer.layout.shard(0)
        changed = {name: values + 1 for name, values in fields(compact, first).items()}
        writer.write_shard(first, changed, facts(first))
    shards = {0: recorded_shards(other, compact)[0], 3: recorded_shards(one, compact)[3]}
    with pytest.raises(MismatchError, match=r"shard 3 \(view 1, "):
        import_shards(tmp_path / "c.zarr", compact, shards)
    assert sorted(recorded_shards(tmp_path / "c.zarr", compact)) == [0]
