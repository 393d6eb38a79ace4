"""Parts of one cache are merged into that cache; parts of different caches are refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from contracts.calling import refuse, succeed
from contracts.forging import EncodedViews, forge
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import FEW, THREE_SHARDS, dump_tiny

from bancache.cache.manifest_io import sign
from bancache.cache.reader import open_cache
from bancache.cache.verify import verify_cache
from bancache.cache.writer import CacheWriter
from bancache.dumping.merge import merge_caches
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.fixture(scope="session")
def recorded(dumped: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> Path:
    """A dump that was killed after its last shard, before its manifest."""

    class Dead(Exception):
        pass

    def die(*_: object) -> None:
        raise Dead

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        patch.setattr(CacheWriter, "finish", die)
        with pytest.raises(Dead):
            dump_tiny(teacher_path, spec, data, dumped / "recorded.zarr", num_views=FEW)
    return dumped / "recorded.zarr"


def part(recorded: Path, path: Path, shards: list[int]) -> Path:
    """Leave a store with some shards, as a machine that did these would."""
    shutil.copytree(recorded, path)
    for record in (path / ".regions").iterdir():
        if int(record.stem) not in shards:
            record.unlink()
            view_index, block = divmod(int(record.stem), 3)
            (path / "q" / "c" / str(view_index) / str(block) / "0").unlink()
    return path


def record_otherwise(under_way: Path, shard: int, key: str, content: bytes) -> None:
    """Give a recorded shard another file, as another machine would have written it."""
    (under_way / key).write_bytes(content)
    file = under_way / f".regions/{shard:06d}.json"
    record = json.loads(file.read_text())
    del record["digest"]
    record["files"] = {key: [len(content), hashlib.sha256(content).hexdigest()]}
    file.write_text(json.dumps(sign(record)))


def test_two_halves_are_the_whole(recorded: Path, dumped: Path, memory: Path, small_shards: None) -> None:
    one = part(recorded, memory / "1.zarr", [0, 1, 2, 3, 7])
    other = part(recorded, memory / "2.zarr", [3, 4, 5, 6, 8])
    before = tree(one), tree(other)
    merged = merge_caches([one, other], memory / "out" / "c.zarr")
    assert tree(merged.cache.path) == tree(dumped / "few.zarr")
    assert (merged.taken, merged.differing) == ((5, 4), 0)
    assert (tree(one), tree(other)) == before


def test_what_none_has_is_named_and_the_rest_goes_on(
    recorded: Path, dumped: Path, memory: Path, small_shards: None
) -> None:
    one = part(recorded, memory / "1.zarr", [0, 1, 2, 3])
    other = part(recorded, memory / "2.zarr", [5, 6])
    (one / "q/c/0/1/0").write_bytes(b"?")
    with pytest.raises(
        CacheDamagedError,
        match=re.escape("4 of 9 ") + ".*" + ".*".join(f"shard {n} " for n in (1, 4, 7, 8)),
    ):
        merge_caches([one, other], memory / "c.zarr")
    assert not (memory / "c.zarr").exists()
    third = part(recorded, memory / "3.zarr", [1, 4, 7, 8])
    assert tree(merge_caches([one, other, third], memory / "c.zarr").cache.path) == tree(dumped / "few.zarr")


def test_damaged_caches_heal_one_another(dumped: Path, memory: Path, small_shards: None) -> None:
    paths = [shutil.copytree(dumped / "few.zarr", memory / name) for name in ("1.zarr", "2.zarr")]
    (paths[0] / "q/c/0/1/0").unlink()
    (paths[0] / "q/zarr.json").write_bytes(b"")
    shutil.copy(paths[1] / "q/c/2/0/0", paths[1] / "q/c/2/2/0")
    merged = merge_caches(paths, memory / "c.zarr")
    assert tree(merged.cache.path) == tree(dumped / "few.zarr")
    assert merged.taken == (8, 1)


def test_whole_views_of_a_damaged_cache_and_a_dump_under_way(
    recorded: Path, dumped: Path, memory: Path, small_shards: None
) -> None:
    """Shard 4 is lost here and has other bytes there: the cache that it was cannot come back, a sound one can."""
    damaged = shutil.copytree(dumped / "few.zarr", memory / "1.zarr")
    (damaged / "q/c/1/1/0").unlink()
    under_way = part(recorded, memory / "2.zarr", [0, 3, 4, 5])
    answer = (dumped / "few.zarr/q/c/2/1/0").read_bytes()
    record_otherwise(under_way, 4, "q/c/1/1/0", answer)
    merged = merge_caches([under_way, damaged], memory / "c.zarr")
    assert (merged.taken, merged.differing) == ((3, 6), 0)
    found, before = tree(merged.cache.path), tree(dumped / "few.zarr")
    assert {name for name in found if found[name] != before[name]} == {"q/c/1/1/0", "manifest.json"}
    assert found["q/c/1/1/0"] == answer
    assert verify_cache(merged.cache.path) == []
    assert merged.cache.summary == open_cache(dumped / "few.zarr").summary


def test_caches_with_different_manifests_are_refused_with_both_values(
    few: Path, dumped: Path, memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    with pytest.raises(
        MismatchError,
        match=r"^a\.zarr and many\.zarr .*\b3\b.*\b5$",
    ):
        merge_caches([few, dumped / "many.zarr"], memory / "c.zarr")
    dump_tiny(teacher_path, spec, data, memory / "8.zarr", num_views=FEW, encoding="root8")
    with pytest.raises(MismatchError, match=r"root4.*root8"):
        merge_caches([few, memory / "8.zarr"], memory / "c.zarr")
    with pytest.raises(UsageError, match=str(few)):
        merge_caches([few], few)
    assert not (memory / "c.zarr").exists()


def test_the_command_says_what_came_from_where(
    recorded: Path, dumped: Path, memory: Path, small_shards: None
) -> None:
    one = part(recorded, memory / "1.zarr", list(range(8)))
    refuse(3, r"1 of 9 .*shard 8 .*", "merge", one, "--out", memory / "c.zarr")
    other = part(recorded, memory / "2.zarr", [8])
    said = succeed("merge", one, other, "--out", memory / "c.zarr", "-q")
    assert [part["shards"] for part in said["taken"]] == [8, 1]
    assert (said["views"], said["samples"], said["differing"]) == (FEW, 96, 0)
    assert tree(memory / "c.zarr") == tree(dumped / "few.zarr")


def test_where_complete_caches_differ_the_first_ones_shards_are_taken(
    recorded: Path, dumped: Path, memory: Path, small_shards: None
) -> None:
    """Both lost a shard of view 0, which a dump under way has with other bytes; in view 2 theirs differ, too."""

    def turned(encoded_views: EncodedViews) -> EncodedViews:
        encoded_views[2]["q"][:32] = np.roll(encoded_views[2]["q"][:32], 1, axis=0)
        return encoded_views

    one = shutil.copytree(dumped / "few.zarr", memory / "1.zarr")
    other = forge(dumped / "few.zarr", memory / "2.zarr", turned)
    for path in (one, other):
        (path / "q/c/0/1/0").unlink()
    under_way = part(recorded, memory / "3.zarr", [0, 1, 2])
    record_otherwise(under_way, 1, "q/c/0/1/0", (dumped / "few.zarr/q/c/1/1/0").read_bytes())
    for number, (first, second) in enumerate([(one, other), (other, one)]):
        merged = merge_caches([under_way, first, second], memory / f"{number}-out.zarr")
        assert (merged.taken, merged.differing) == ((3, 6, 0), 1)
        assert tree(merged.cache.path)["q/c/2/0/0"] == (first / "q/c/2/0/0").read_bytes()
