"""``bancache bench`` on the chain's tiny cache: the rows and their values, not the speed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from contracts.calling import Chain, call, refuse, succeed
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.tiny import CPU
from sources.tiny import Heard

from bancache.cache.reader import open_cache
from bancache_cli.measure import _cached_teacher
from bancache_cli.origins import OriginOptions

QUICK = ("--rounds", "2", "--batch-size", "32")


def test_every_part_is_timed_beside_its_bound_and_the_bottleneck_is_named(chain: Chain) -> None:
    before = tree(chain.folder)
    said = succeed("bench", "--cache", chain / "gen0.zarr", *QUICK)
    pairs = [(row["one"][0], row["other"][0]) for row in said["comparisons"]]
    assert pairs == [
        ("copy of the views' bytes", "views"),
        ("copy of the targets' bytes", "targets"),
        ("loss", "eager loss"),
        ("step, data in place", "step, cached data"),
        ("step, teacher online", "step, cached data"),
        ("student and teacher alone", "step, cached data"),
        ("teacher alone", "dump"),
    ]
    assert all(row["ratio"]["median"] > 0 and row["one"][1] > 0 for row in said["comparisons"])
    assert abs(sum(said["shares"].values()) - 1) < 1e-9
    assert said["bottleneck"].startswith("bottleneck: the ")
    assert said["environment"]["device"] == "cpu"
    assert tree(chain.folder) == before


def test_without_its_teacher_the_other_parts_are_timed(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain / "gen0.zarr", tmp_path / "moved.zarr")
    (chain / "gen0.pt").rename(tmp_path / "away.pt")
    try:
        outcome = call("bench", "--cache", tmp_path / "moved.zarr", "--model", "convnet-2", *QUICK)
        assert outcome.code == 0
        assert "gen0.pt" in outcome.err
        assert "--teacher" in outcome.err
        assert "teacher online" not in outcome.out
        assert "step, data in place / step, cached data" in outcome.out
        named = succeed(
            "bench", "--cache", tmp_path / "moved.zarr", *QUICK, "--teacher", tmp_path / "away.pt"
        )
        assert len(named["comparisons"]) == 7
    finally:
        (tmp_path / "away.pt").rename(chain / "gen0.pt")


def test_a_teacher_from_elsewhere_is_run_only_if_it_is_named(chain: Chain, tmp_path: Path) -> None:
    cache, told = shutil.copytree(chain / "gen0.zarr", tmp_path / "c.zarr"), Heard()
    reseal(cache, lambda stored: stored["promise"]["teacher"].update(path="torchvision:resnet18"))
    images: Any = None  # are not looked at
    assert _cached_teacher(open_cache(cache), None, OriginOptions(), images, CPU, told) is None
    (note,) = told.notes
    assert "--teacher torchvision:resnet18" in note
    assert "missing" not in note


def test_another_model_is_refused_as_the_teacher(chain: Chain) -> None:
    argv = ("bench", "--cache", chain / "gen0.zarr", *QUICK, "--teacher", chain / "gen1.pt")
    refuse(4, r"gen1\.pt.*'[0-9a-f]{12}'.*'[0-9a-f]{12}'", *argv, hint="--teacher")
