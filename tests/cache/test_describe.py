"""What a cache says of itself, finished or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.small_cache import make_manifest, write_some

from bancache.cache.info import describe
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError

FACTS = {
    "format_version": 1,
    "profile": "default",
    "shards": 9,
    "samples": 40,
    "views": 3,
    "classes": 10,
    "encoding": {"name": "test"},
    "view_space": make_manifest().view_space,
    "teacher": make_manifest().teacher,
    "teacher_size": None,
    "dataset": {key: value for key, value in make_manifest().dataset.items() if key != "classes"},
    "compute": {"batch_size": 100, "precision": "float32"},
    "created_with": {"bancache": "0"},
}


def test_a_complete_cache_is_described_by_its_manifest(cache: Path) -> None:
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    assert describe(cache) == {
        **FACTS,
        "path": str(cache),
        "complete": True,
        "shards_done": 9,
        "bytes": size,
        "bytes_per_pair": size / 120,
        "mixed_devices": [],
        "fidelity": None,
        "noise_floor": None,
        "teacher_accuracy": None,
        "teacher_mean_max_probability": None,
        "chance": 0.1,
        "digest": open_cache(cache).digest,
    }


@pytest.mark.usefixtures("small_shards")
def test_an_unfinished_cache_says_how_far_it_is(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0, 5, 7])
    described = describe(path)
    assert {key: described[key] for key in FACTS} == FACTS
    assert (described["complete"], described["shards_done"]) == (False, 3)
    assert described["bytes"] > 0
    assert described["bytes_per_pair"] is None
    assert described["fidelity"] is None


@pytest.mark.usefixtures("small_shards")
def test_a_cache_that_is_just_begun_has_done_nothing(tmp_path: Path) -> None:
    assert describe(write_some(tmp_path / "a.zarr", []))["shards_done"] == 0


def test_what_is_not_a_cache_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        describe(tmp_path)


def test_an_edited_manifest_is_not_described(cache: Path) -> None:
    file = cache / "manifest.json"
    file.write_text(file.read_text().replace('"samples": 40', '"samples": 50'))
    with pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        describe(cache)
