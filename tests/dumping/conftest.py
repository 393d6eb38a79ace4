"""Caches of one tiny teacher: of three views, of five dumped at once, and the right to spoil copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.memory import folder_in_memory
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, FEW, MANY, THREE_SHARDS, dump_tiny

from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.fixture
def memory() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)


@pytest.fixture(scope="session")
def teacher(teacher_path: Path) -> Teacher:
    return load_teacher(str(teacher_path), device=CPU)


@pytest.fixture(scope="session")
def dumped(teacher_path: Path, spec: DataSpec, data: ImageSet) -> Iterator[Path]:
    """A folder with few.zarr and many.zarr, each dumped at once."""
    with folder_in_memory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SHARD_BYTES, THREE_SHARDS)
            for name, views in (("few", FEW), ("many", MANY)):
                dump_tiny(teacher_path, spec, data, folder / f"{name}.zarr", num_views=views)
        yield folder


@pytest.fixture
def few(dumped: Path, memory: Path, small_shards: None) -> Path:
    """A copy of the cache of three views."""
    return shutil.copytree(dumped / "few.zarr", memory / "a.zarr")
