"""A cache of very many samples has larger shards, and says so; one that was begun without goes on without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contracts.calling import succeed
from contracts.damage import DAMAGES
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, FEW, MANY, THREE_SHARDS, After, dump_tiny

from bancache.cache.reader import open_cache
from bancache.dumping.merge import merge_caches
from bancache.dumping.repair import repair
from bancache.dumping.resize import extend, prune
from bancache.errors import MismatchError, StoppedError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.fixture
def _few_files(monkeypatch: pytest.MonkeyPatch, small_shards: None) -> None:
    """A view of 96 samples has at most two files, and not three."""
    monkeypatch.setattr("bancache.cache.layout._VIEW_FILES", 2)


@pytest.fixture(scope="module")
def large(
    dumped: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with few.zarr and many.zarr of large shards."""
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        patch.setattr("bancache.cache.layout._VIEW_FILES", 2)
        for name, views in (("few", FEW), ("many", MANY)):
            dump_tiny(teacher_path, spec, data, folder / f"{name}.zarr", num_views=views)
    return folder


@pytest.mark.usefixtures("small_shards")
def test_it_has_the_values_of_one_of_small_shards_in_fewer_files(large: Path, dumped: Path) -> None:
    cache, other = open_cache(large / "few.zarr"), open_cache(dumped / "few.zarr")
    assert (cache.manifest.format_version, cache.manifest.shard_samples) == (3, 48)
    assert (other.manifest.format_version, other.manifest.shard_samples) == (1, None)
    assert (len(cache.digests), len(other.digests)) == (2 * FEW + 2, 3 * FEW + 2)
    for view_index in range(FEW):
        found, expected = cache.read_view(view_index), other.read_view(view_index)
        np.testing.assert_array_equal(found["q"], expected["q"])
    facts = succeed("info", large / "few.zarr")
    assert (facts["format_version"], facts["shards"]) == (3, 2 * FEW)


def test_it_grows_and_shrinks_to_what_one_dump_would_be(
    large: Path, memory: Path, teacher: Teacher, data: ImageSet
) -> None:
    extend(large / "few.zarr", teacher, data, MANY, out=memory / "b.zarr", device=CPU)
    assert tree(memory / "b.zarr") == tree(large / "many.zarr")
    prune(large / "many.zarr", data, FEW, out=memory / "c.zarr")
    assert tree(memory / "c.zarr") == tree(large / "few.zarr")


def test_its_lost_shards_are_computed_again(
    large: Path, memory: Path, teacher: Teacher, data: ImageSet
) -> None:
    prune(large / "few.zarr", data, FEW, out=memory / "a.zarr")
    chunk = memory / "a.zarr/q/c.1.1.0"
    content = chunk.read_bytes()
    chunk.unlink()  # its other name is that of the cache it came from
    chunk.write_bytes(content)
    DAMAGES["flipped"](chunk, chunk)
    assert repair(memory / "a.zarr", teacher, data, device=CPU).shards == 1
    assert tree(memory / "a.zarr") == tree(large / "few.zarr")


@pytest.mark.usefixtures("_few_files")
def test_what_an_earlier_version_began_goes_on_and_grows_with_its_own_shards(
    dumped: Path,
    memory: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    teacher: Teacher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = memory / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("bancache.cache.layout._VIEW_FILES", 99)
        with pytest.raises(StoppedError):
            dump_tiny(teacher_path, spec, data, path, num_views=FEW, interrupt=After(2))
    result, _ = dump_tiny(teacher_path, spec, data, path, num_views=FEW)
    assert result.num_pairs == (3 * FEW - 2) * 32
    assert tree(path) == tree(dumped / "few.zarr")
    extend(path, teacher, data, MANY, out=memory / "b.zarr", device=CPU)
    assert tree(memory / "b.zarr") == tree(dumped / "many.zarr")


def test_caches_of_different_shards_are_not_merged(large: Path, dumped: Path, memory: Path) -> None:
    with pytest.raises(MismatchError, match=r"samples of a shard: .*48.*None"):
        merge_caches([large / "few.zarr", dumped / "few.zarr"], memory / "c.zarr")


@pytest.mark.usefixtures("_few_files")
def test_a_cache_in_the_way_decides_nothing(
    large: Path, dumped: Path, memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """Overwritten, it is made anew with the shards of today; one of other images is named as such."""
    dump_tiny(teacher_path, spec, data.first(40), memory / "a.zarr", num_views=FEW)
    with pytest.raises(MismatchError, match="data set"):
        dump_tiny(teacher_path, spec, data, memory / "a.zarr", num_views=FEW)
    dump_tiny(teacher_path, spec, data, memory / "a.zarr", num_views=FEW, overwrite=True)
    assert tree(memory / "a.zarr") == tree(large / "few.zarr")
