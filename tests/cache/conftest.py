"""Small regions for tests that ask for them, and folders in memory, where flushing is free."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.small_cache import MAPPED_BYTES, REGION_BYTES, SMALL_REGION, write

MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A small cache takes a hundred flushes, each of which waits for a real disk."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bancache-test-", dir=where) as folder:
        yield Path(folder).resolve()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Replace pytest's by one in memory."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three regions of a small cache's slot."""
    monkeypatch.setattr(REGION_BYTES, SMALL_REGION)
    monkeypatch.setattr(MAPPED_BYTES, SMALL_REGION)


@pytest.fixture(scope="session")
def sound() -> Iterator[Path]:
    """A cache of small regions that nobody changes."""
    with folder_in_memory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(REGION_BYTES, SMALL_REGION)
            write(folder / "a.zarr")
        yield folder / "a.zarr"


@pytest.fixture
def cache(sound: Path, tmp_path: Path, small_regions: None) -> Path:
    """A copy of it to do harm to."""
    return shutil.copytree(sound, tmp_path / "a.zarr")
