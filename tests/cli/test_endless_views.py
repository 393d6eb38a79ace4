"""Views that are drawn anew at every view index: how many a cache stores, and what is said of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import call, refuse, succeed

from bancache.views.space import PRESETS


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path) -> dict[str, dict[str, Any]]:
    """What dumps of a teacher said: one of its recipe's four epochs, and some of more views or other ones."""
    folder = tmp_path_factory.mktemp("caches")
    dumps = {
        "default": ("--views", "rrc-flip"),
        "ten": ("--views", "rrc-flip", "--num-views", "10"),
        "deit": ("--views", "deit", "--num-views", "2", "--teacher-size", "20"),
        "lattice": ("--num-views", "2"),
    }
    return {
        name: succeed("dump", teacher_path, *argv, "--out", folder / f"{name}.zarr")
        for name, argv in dumps.items()
    }


def test_all_of_them_is_no_number(teacher_path: Path, tmp_path: Path) -> None:
    argv = ("dump", teacher_path, "--out", tmp_path / "a.zarr", "--views", "rrc-flip", "--num-views")
    refuse(2, "rrc-flip", *argv, "all", hint="--num-views 50", keep=tmp_path)
    hint = refuse(2, "many", *argv, "many", hint="--num-views 50", keep=tmp_path)
    assert "all" not in hint
    hint = refuse(2, ("rrc-flip", "cannot be 0"), *argv, "0", hint="1 or more", keep=tmp_path)
    assert "all" not in hint


def test_by_default_there_is_one_for_each_epoch(said: dict[str, dict[str, Any]]) -> None:
    assert said["default"]["views"] == 4


def test_fewer_than_ten_are_stored_with_a_warning(said: dict[str, dict[str, Any]]) -> None:
    """A lattice's views cover it, so that few of them are a choice that this does not judge."""
    few = {name: [text for text in one["warnings"] if "fewer than 10" in text] for name, one in said.items()}
    assert {name for name, texts in few.items() if texts} == {"default", "deit"}
    assert few["default"][0].startswith("4 views ")


def test_info_counts_them_without_an_end_and_names_them_in_full(said: dict[str, dict[str, Any]]) -> None:
    shown = call("info", said["deit"]["out"]).out
    assert re.search(r"contents +2 views of 96 images", shown)
    assert re.search(rf"views +{re.escape(PRESETS['deit'])}, seed 0", shown)
    assert "2 of 18 views of 96 images" in call("info", said["lattice"]["out"]).out


def test_info_tells_the_size_at_which_the_teacher_saw_them(said: dict[str, dict[str, Any]]) -> None:
    assert re.search(r"teacher's input +20x20 pixels", call("info", said["deit"]["out"]).out)
    assert succeed("info", said["deit"]["out"])["teacher_size"] == [20, 20]
    assert succeed("info", said["ten"]["out"])["teacher_size"] is None
    assert "10x10" not in call("info", said["ten"]["out"]).out
