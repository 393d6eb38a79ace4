"""Data that are not where or what was said: the nearest form is named, and what is there is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.calling import refuse
from sources.tiny import make_folder, make_npz, make_parquet

from bancache.errors import DataError, UsageError
from bancache.sources import open_source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set of every kind, as the working directory."""
    make_folder(tmp_path / "photos")
    make_parquet(tmp_path / "hub")
    make_npz(tmp_path / "d.npz")
    for name in ("root/cifar-100-python", "old/cifar-10-batches-py", "fm/FashionMNIST/raw"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("photos", "folder:photos"),
        ("./photos/", "folder:photos"),
        ("hub", "parquet:hub"),
        ("hub/test-00000-of-00001.parquet", "parquet:hub"),
        ("d.npz", "npz:d.npz"),
        ("root", "cifar100:root"),
        ("root/cifar-100-python", "cifar100:root"),
        ("old", "cifar10:old"),
        ("fm", "fashion-mnist:fm"),
        ("cifar100:hub", "parquet:hub"),
        ("cifar10:root", "cifar100:root"),
        ("folder:hub", "parquet:hub"),
        ("folder:d.npz", "npz:d.npz"),
        ("folder:phtos", "folder:photos"),
        ("parquet:photos", "folder:photos"),
        ("parquet:hub/test-00000-of-00001.parquet", "parquet:hub"),
        ("npz:photos", "folder:photos"),
        ("npz:e.npz", "npz:d.npz"),
        ("cifra100:x", "cifar100"),
    ],
)
def test_the_source_that_reads_what_is_there_is_named(here: Path, typed: str, meant: str) -> None:
    with pytest.raises((UsageError, DataError)) as caught:
        open_source(typed, "train")
    assert f"did you mean {meant}" in caught.value.hint


@pytest.mark.parametrize("typed", ["folder:nowhere", "parquet:nowhere", "npz:nowhere", "cifar100:nowhere"])
def test_what_is_not_found_is_refused_with_what_is_there(here: Path, typed: str) -> None:
    with pytest.raises(DataError, match=r"d\.npz.*fm.*hub.*old.*photos.*root"):
        open_source(typed, "train")


def test_nothing_is_suggested_where_nothing_is(here: Path) -> None:
    (here / "empty").mkdir()
    for typed in ("empty", "folder:empty", "parquet:empty"):
        with pytest.raises((UsageError, DataError)) as caught:
            open_source(typed, "train")
        assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize("command", ["train-teacher", "generations"])
def test_training_asks_which_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(2, ("--data",), command, keep=tmp_path)


@pytest.mark.parametrize("command", ["info", "verify", "train-student", "prune --num-views 2 --out b.zarr"])
def test_a_checkpoint_in_place_of_a_cache_is_named_with_what_takes_it(here: Path, command: str) -> None:
    (here / "gen0.pt").write_bytes(b"PK")
    name, *rest = command.split()
    assert "bancache dump --teacher gen0.pt" in refuse(3, "gen0.pt", name, "gen0.pt", *rest)
