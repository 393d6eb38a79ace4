"""A cache that lost its last views is, byte for byte, the one that was never dumped with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contracts.calling import call, refuse, require_commands, succeed
from contracts.failing import Killed, fail_at
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.tiny import FEW, MANY

from bancache.cache.reader import open_cache
from bancache.cache.verify import verify_cache
from bancache.dumping.resize import prune
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.sources.image_set import ImageSet


@pytest.fixture
def many(dumped: Path, memory: Path, small_shards: None) -> Path:
    return shutil.copytree(dumped / "many.zarr", memory / "a.zarr")


def test_the_first_views_are_the_cache_of_so_many_views(many: Path, dumped: Path, data: ImageSet) -> None:
    assert prune(many, data, FEW, out=many.parent / "b.zarr").manifest.num_views == FEW
    assert tree(many.parent / "b.zarr") == tree(dumped / "few.zarr")
    assert tree(many) == tree(dumped / "many.zarr")


@pytest.mark.parametrize("at", [3, 20, 40, 60])
def test_killed_it_leaves_the_old_cache_as_it_was_and_goes_on(
    many: Path, dumped: Path, data: ImageSet, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out = many.parent / "b.zarr"
    with monkeypatch.context() as patch:
        fail_at(patch, at, Killed)
        with pytest.raises(Killed):
            prune(many, data, FEW, out=out)
    assert tree(many) == tree(dumped / "many.zarr")
    assert prune(many, data, FEW, out=out).read_view(FEW - 1)
    assert tree(out) == tree(dumped / "few.zarr")


def test_of_an_earlier_versions_cache_it_states_the_parents_fidelity_as_the_parents(
    many: Path, data: ImageSet
) -> None:
    reseal(many, lambda stored: stored["summary"].pop("slots"))
    parent = open_cache(many)
    pruned = prune(many, data, FEW, out=many.parent / "b.zarr")
    assert pruned.summary == {
        "parent": {"digest": parent.digest, "slots": MANY, "summary": parent.summary},
    }
    assert verify_cache(pruned.path) == []
    assert call("info", pruned.path).code == 0


def test_what_cannot_be_pruned_is_refused(many: Path, data: ImageSet) -> None:
    out = many.parent / "b.zarr"
    with pytest.raises(UsageError, match=r"\b5\b.*\b6\b") as caught:
        prune(many, data, 6, out=out)
    assert f"bancache extend {many} --num-views 6" in caught.value.hint
    require_commands(caught.value.hint)
    with pytest.raises(MismatchError, match=data.fingerprint[:12]):
        prune(many, data.first(90), FEW, out=out)
    with pytest.raises(UsageError) as caught:
        prune(many, data, FEW, out=many)
    assert "--out" in caught.value.hint
    (many / "q/c/4/0/0").unlink()  # a view that is left out may be damaged, one that is kept may not
    prune(many, data, FEW, out=out)
    (many / "q/c/1/0/0").unlink()
    with pytest.raises(CacheDamagedError, match=r"shard 3 \(view 1, samples 0 to 31\)"):
        prune(many, data, FEW, out=many.parent / "c.zarr")


def test_the_commands_extend_and_prune(few: Path, dumped: Path) -> None:
    more, small = few.parent / "more.zarr", few.parent / "small.zarr"
    facts = succeed("extend", few, "--num-views", str(MANY), "--out", more, "-q")
    assert (facts["views"], facts["computed"]) == (MANY, (MANY - FEW) * 96)
    assert tree(more) == tree(dumped / "many.zarr")
    hint = refuse(
        2, r".*\b5\b.*\b3\b.*", "extend", more, "--num-views", str(FEW), "--out", small, "-q", keep=more
    )
    assert "bancache prune" in hint
    assert "5 views of 96 images" in call("extend", few, "--num-views", str(MANY), "--out", more).out
    assert succeed("prune", more, "--num-views", str(FEW), "--out", small, "-q")["views"] == FEW
    assert tree(small) == tree(few) == tree(dumped / "few.zarr")
    assert sorted(p.name for p in few.parent.iterdir()) == [
        "a.zarr",
        "more.zarr",
        "results.jsonl",
        "small.zarr",
    ]


@pytest.mark.parametrize("command", ["extend", "prune"])
def test_the_commands_need_out(few: Path, dumped: Path, command: str) -> None:
    outcome = call(command, few, "--num-views", "3")
    assert outcome.code == 2
    assert "--out" in outcome.err
    assert tree(few) == tree(dumped / "few.zarr")
