"""A cache that lost its last views is, byte for byte, the one that was never dumped with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contracts.calling import call, refuse, succeed
from contracts.failing import Killed, fail_at
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.tiny import FEW, MANY

from bancache.cache.reader import open_cache
from bancache.cache.verify import verify_cache
from bancache.dumping.prune import prune
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.sources.base import ImageSet


@pytest.fixture
def many(dumped: Path, memory: Path, small_shards: None) -> Path:
    return shutil.copytree(dumped / "many.zarr", memory / "a.zarr")


def test_the_first_views_are_the_cache_of_so_many_views(many: Path, dumped: Path, data: ImageSet) -> None:
    before = tree(many)
    assert prune(many, FEW, data, out=many.parent / "b.zarr").manifest.num_views == FEW
    assert tree(many.parent / "b.zarr") == tree(dumped / "few.zarr")
    assert tree(many) == before
    assert prune(many, FEW, data).path == many
    assert tree(many) == tree(dumped / "few.zarr")
    assert sorted(p.name for p in many.parent.iterdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize("at", [3, 20, 40, 60, 68, 71])
def test_killed_it_leaves_a_complete_cache_and_goes_on(
    many: Path, dumped: Path, data: ImageSet, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, at, Killed)
        with pytest.raises(Killed):
            prune(many, FEW, data)
    assert prune(many, FEW, data).read_view(FEW - 1)
    assert tree(many) == tree(dumped / "few.zarr")
    assert [p.name for p in many.parent.iterdir()] == ["a.zarr"]


def test_of_an_earlier_versions_cache_it_states_the_parents_fidelity_as_the_parents(
    many: Path, data: ImageSet
) -> None:
    reseal(many, lambda stored: stored["summary"].pop("slots"))
    parent = open_cache(many)
    pruned = prune(many, FEW, data, out=many.parent / "b.zarr")
    assert pruned.summary == {
        "parent": {"digest": parent.digest, "slots": MANY, "summary": parent.summary},
    }
    assert verify_cache(pruned.path) == []
    assert call("info", pruned.path).code == 0


def test_what_cannot_be_pruned_is_refused(many: Path, data: ImageSet) -> None:
    with pytest.raises(UsageError, match="has 5 views, so it cannot keep 6"):
        prune(many, 6, data)
    with pytest.raises(MismatchError, match="data set: made with"):
        prune(many, FEW, data.first(90))
    (many / "q/c/4/0/0").unlink()  # a view that is left out may be damaged, one that is kept may not
    prune(many, FEW, data, out=many.parent / "b.zarr")
    (many / "q/c/1/0/0").unlink()
    with pytest.raises(CacheDamagedError, match=r"shard 3 \(view 1, samples 0 to 31\) is damaged"):
        prune(many, FEW, data, out=many.parent / "c.zarr")


def test_the_commands_grow_and_shrink(few: Path, dumped: Path) -> None:
    said = succeed("extend", few, "--num-views", str(MANY), "-q")
    assert (said["views"], said["answered"]) == (MANY, (MANY - FEW) * 96)
    assert tree(few) == tree(dumped / "many.zarr")
    hint = refuse(2, r".* has 5 views, more than 3", "extend", few, "--num-views", str(FEW), "-q", keep=few)
    assert "bancache prune" in hint
    assert "5 views of 96 images" in call("extend", few, "--num-views", str(MANY)).out
    assert succeed("prune", few, "--num-views", str(FEW), "-q")["views"] == FEW
    assert tree(few) == tree(dumped / "few.zarr")
    assert sorted(p.name for p in few.parent.iterdir()) == ["a.zarr", "results.jsonl"]
