"""What an object store says of itself bounds what is taken from it, before it is taken."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from contracts.hostile import cheaply, list_as, reseal
from contracts.killing import tree
from contracts.small_cache import write, write_some

from bancache.errors import CacheDamagedError, StorageError
from bancache.remote.pull import pull
from bancache.system.bucket import Bucket


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return write(tmp_path / "there.zarr")


def bucket(path: Path) -> Bucket:
    return Bucket(path.as_uri())


def test_a_cache_is_pulled_from_any_store(complete: Path, tmp_path: Path) -> None:
    assert pull(bucket(complete), tmp_path / "here.zarr").complete
    assert tree(tmp_path / "here.zarr") == tree(complete)


@pytest.mark.parametrize("key", [".regions/{:06d}.json", "junk/{}", ".regions/000000.json"])
def test_a_listing_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Of records, of other objects, or of one object again and again."""
    there = write_some(tmp_path / "there.zarr", [0])
    known = obstore.head(bucket(there)._store, "manifest.json")
    numbers = itertools.count()

    def endless(store: object, prefix: str | None = None, **options: Any) -> Iterator[list[Any]]:
        while True:
            yield [{**known, "path": key.format(next(numbers))} for _ in range(options["chunk_size"])]

    monkeypatch.setattr(obstore, "list", endless)
    with cheaply(), pytest.raises(CacheDamagedError, match="lists more than 1,0"):
        pull(bucket(there), tmp_path / "here.zarr")
    assert not (tmp_path / "here.zarr").exists()


@pytest.mark.parametrize("announced", [10, 1 << 60])
def test_an_object_larger_than_its_digest_is_not_fetched(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int
) -> None:
    """It says so, or it says a small size and never ends."""
    sent = itertools.count()

    def get(store: object, key: str) -> object:
        return SimpleNamespace(
            meta={"size": announced}, stream=lambda: (bytes(1 << 16) for _ in sent), bytes=pytest.fail
        )

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get", get)
        with cheaply(), pytest.raises(CacheDamagedError, match="at most 1,000 "):
            bucket(complete).get("q/c/0/0/0", 1000)
    assert next(sent) <= 1


def test_a_cache_larger_than_the_disk_is_not_begun(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(StorageError, match="room for 100"):
        pull(bucket(complete), tmp_path / "here.zarr")
    assert not (tmp_path / "here.zarr").exists()


def test_a_file_that_no_shard_can_have_is_refused_by_the_manifest(complete: Path, tmp_path: Path) -> None:
    reseal(complete, list_as("q/c/0/0/0", [1 << 40, "0" * 64]))
    with cheaply(), pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        pull(bucket(complete), tmp_path / "here.zarr")
