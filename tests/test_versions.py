"""What version 0.1 (commit 3e90170) wrote opens, verifies, trains on and is reported.

``tests/fixtures/version-0.1`` holds its output on 48 digits: a teacher, its cache, a student, a study of one seed, and
what a signal left of a training (after 4 of 9 steps) and of a dump (after 1 of 3 shards).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import succeed

from bancache.cache.reader import open_cache
from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import read_records

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the fixture, as the working directory."""
    shutil.copytree(FIXTURE, tmp_path / "old")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def require_alike(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights; another processor may round the last bits differently."""
    first, second = load_checkpoint(one).state, load_checkpoint(other).state
    assert list(first) == list(second)
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-3, atol=1e-4)


def test_its_cache_is_intact_and_holds_what_its_teacher_says(old: Path) -> None:
    told = succeed("verify", "gen0.zarr", "--deep", "--teacher", "gen0.pt")
    assert told["findings"] == []
    assert told["audit"]["mismatches"] == 0
    about = succeed("info", "gen0.zarr")
    assert (about["samples"], about["views"], about["classes"]) == (48, 3, 10)


def test_its_dump_is_finished_to_the_same_targets(old: Path) -> None:
    succeed("dump", "--teacher", "gen0.pt", "--num-views", "3", "--out", "part.zarr")
    finished, whole = open_cache(old / "part.zarr"), open_cache(old / "gen0.zarr")
    for view_index in range(3):
        codes = [cache.read_view(view_index)["q"].astype(int) for cache in (finished, whole)]
        assert np.abs(codes[0] - codes[1]).max() <= 1


def test_its_student_is_trained_on_to_the_same_weights(old: Path) -> None:
    told = succeed("train-student", "--cache", "gen0.zarr", "--epochs", "3", "--out", "part.pt")
    assert told["generation"] == 1
    require_alike(old / "part.pt", old / "gen1.pt")
    assert not (old / "part.pt.resume").exists()


def test_its_student_teaches_the_next_one(old: Path) -> None:
    succeed("dump", "--teacher", "gen1.pt", "--num-views", "2")
    succeed("train-student", "--cache", "gen1.zarr", "--epochs", "1", "--out", "gen2.pt")
    header = load_checkpoint(old / "gen2.pt").header
    assert [one["generation"] for one in header["lineage"]] == [0, 1]


def test_its_study_goes_on_and_is_reported(old: Path) -> None:
    before = read_records(old / "run" / "results.jsonl")
    kept = {file: file.read_bytes() for file in old.glob("run/seed0/*.pt")}
    study = (
        "--data",
        "digits",
        "--limit",
        "48",
        "--model",
        "convnet-2",
        "--epochs",
        "1",
        "--batch-size",
        "16",
    )
    succeed("generations", *study, "--generations", "2", "--seeds", "0", "--control", "--out", "run")
    after = read_records(old / "run" / "results.jsonl")
    assert after[: len(before)] == before
    assert [r["generation"] for r in after if r["kind"] == "run"] == [0, 1, 2]
    assert {file: file.read_bytes() for file in kept} == kept
    succeed("report", "run")
    assert "convnet-2" in (old / "run" / "page.html").read_text()
