"""Shards taken over from another store, and a new cache put in the place of an old one: killed at any instant."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from contracts.damage import DAMAGES
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.powercut import Disk
from contracts.small_cache import Q, check_view, facts, fields, manifest, summarize, write, write_some

from bancache.cache.import_shards import import_shards, recorded_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.replace import beside, exchange, recover
from bancache.errors import CacheDamagedError, MismatchError
from bancache.system.locks import exclusive_file

SMALL = manifest(samples=3, num_views=1, fields=(Q,))
LARGE = manifest(samples=3, num_views=2, fields=(Q,))


def grow(path: Path) -> None:
    """Make a cache of two views out of one, as an extension does, with arrays in the place of a teacher."""
    recover(path)
    with exclusive_file(beside(path)):
        cache = open_cache(path)
        if cache.manifest.num_views == 2:
            return
        own = {shard.index: facts(shard) for shard in Layout(SMALL).shards()}
        import_shards(beside(path), LARGE, shards_of(cache, own))
        with open_writer(beside(path), LARGE) as writer:
            if writer is not None:
                for shard in writer.pending():
                    writer.write_shard(shard, fields(LARGE, shard), facts(shard))
                writer.finish(summarize)
        exchange(path, cache.digest)


def check_grown(path: Path, expected: dict[str, bytes]) -> None:
    """The larger cache is in its place, and nothing else is left."""
    assert tree(path) == expected
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    return tree(write(tmp_path / "plain.zarr", LARGE))


@pytest.mark.parametrize("first", [1, 2])
def test_killed_at_any_call_there_is_a_complete_cache_and_it_goes_on(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    between, old = 0, write(tmp_path / "old.zarr", SMALL)
    for call in range(first, 400, 2):
        path = tmp_path / str(call) / "a.zarr"
        shutil.copytree(old, path)
        with monkeypatch.context() as patch:
            fail_at(patch, call, Killed)
            try:
                grow(path)
                break
            except Killed:
                pass
        if not path.exists():  # between the two renamings
            between += 1
            assert tree(beside(path)) == expected
        else:
            check_view(path, 0, open_cache(path).manifest)
        grow(path)
        check_grown(path, expected)
    assert call > 50
    assert between > 0 or first == 2
    check_grown(path, expected)


def test_no_power_cut_leaves_less_than_the_old_cache(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that keeps nothing that it need not keep."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    write(tmp_path / "disk" / "a.zarr", SMALL)
    disk.states = []
    grow(tmp_path / "disk" / "a.zarr")
    states = list(disk.states)
    assert len(states) > 25
    for number, state in enumerate(states):
        path = disk.restore(state, tmp_path / f"after-{number}") / "a.zarr"
        recover(path)
        check_view(path, 0, open_cache(path).manifest)
        grow(path)
        assert tree(path) == expected
    disk.close()


@pytest.mark.parametrize("way", sorted(set(DAMAGES) - {"swapped"}))
def test_a_piece_that_is_not_as_written_is_not_taken(tmp_path: Path, small_shards: None, way: str) -> None:
    cache = open_cache(write(tmp_path / "a.zarr"))
    DAMAGES[way](cache.path / "q/c/1/0/0", cache.path / "q/c/1/1/0")
    own = {shard.index: facts(shard) for shard in Layout(cache.manifest).shards()}
    with pytest.raises(CacheDamagedError, match=r"shard 3 \(view 1, samples 0 to 13\) is damaged"):
        import_shards(tmp_path / "b.zarr", replace(cache.manifest, num_views=5), shards_of(cache, own))


def test_only_what_is_missing_is_taken(tmp_path: Path, small_shards: None) -> None:
    """A store of another promise is refused; one that has shards of its own keeps them."""
    cache = open_cache(write(tmp_path / "a.zarr"))
    own = {shard.index: facts(shard) for shard in Layout(cache.manifest).shards()}
    path = write_some(tmp_path / "b.zarr", [0, 4])
    import_shards(path, cache.manifest, shards_of(cache, own))
    shared = [index for index in own if (path / f"q/c/{index // 3}/{index % 3}/0").stat().st_nlink == 2]
    assert shared == [1, 2, 3, 5, 6, 7, 8]
    assert tree(write(path)) == tree(cache.path)
    with pytest.raises(MismatchError, match="number of views: made with 3, but this run has 5"):
        import_shards(path, replace(cache.manifest, num_views=5), shards_of(cache, own))


def test_records_are_read_without_a_writer_and_only_those_of_the_promise(
    tmp_path: Path, small_shards: None
) -> None:
    path = write_some(tmp_path / "a.zarr", [1, 5, 7])
    (path / ".regions" / "000005.json").write_text("{")
    shutil.copy(path / ".regions" / "000007.json", path / ".regions" / "000008.json")
    found = recorded_shards(path, manifest())
    assert sorted(found) == [1, 7]
    assert found[1].facts == facts(Layout(manifest()).shard(1))
    assert [piece.problem() for piece in found.values()] == [None, None]
    assert recorded_shards(path, manifest(created_with={"bancache": "9"})) == {}
