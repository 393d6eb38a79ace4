"""Small shards for tests that ask for them, and folders in memory, where flushing is free."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.memory import folder_in_memory
from contracts.small_cache import MAPPED_BYTES, SHARD_BYTES, SMALL_SHARD, write


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory, in place of pytest's."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three shards of a small cache's view."""
    monkeypatch.setattr(SHARD_BYTES, SMALL_SHARD)
    monkeypatch.setattr(MAPPED_BYTES, SMALL_SHARD)


@pytest.fixture(scope="session")
def sound() -> Iterator[Path]:
    """A cache of small shards that no test changes."""
    with folder_in_memory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SHARD_BYTES, SMALL_SHARD)
            write(folder / "a.zarr")
        yield folder / "a.zarr"


@pytest.fixture
def cache(sound: Path, tmp_path: Path, small_shards: None) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(sound, tmp_path / "a.zarr")
