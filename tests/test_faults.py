"""Faults of the world around a cache: its power, its clock, its language, its libraries, its memory."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from contracts.calling import refuse
from contracts.disks import LoopDisk
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES, SMALL_SHARD, write
from contracts.tiny import CPU, After, dump_tiny, settings
from contracts.writing import PROMISE
from torture.writers import until_cut

from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.dumping import dump
from bancache.errors import MismatchError, StoppedError
from bancache.loader.open import open_loader
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views.lattice_renderer import LatticeRenderer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    try:
        made = LoopDisk(tmp_path)
    except OSError as refused:
        pytest.skip(f"needs the right to mount an image of ext4: {refused}")
    yield made
    made.close()


def test_power_cut_from_a_real_file_system_loses_no_acknowledged_shard(
    tmp_path: Path, disk: LoopDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 stops without flushing its journal while a process writes; then it is mounted again."""
    monkeypatch.setattr(SHARD_BYTES, SMALL_SHARD)
    expected = tree(write(tmp_path / "plain.zarr", PROMISE))
    try:
        acknowledged = until_cut(disk, disk.path / "a.zarr", after=11)
    except OSError as refused:
        pytest.skip(f"this kernel cuts no file system's power: {refused}")
    assert len(acknowledged) >= 11
    with open_writer(disk.path / "a.zarr", PROMISE) as writer:
        assert writer is not None
        assert not {shard.index for shard in writer.pending()} & acknowledged
    assert tree(write(disk.path / "a.zarr", PROMISE)) == expected


def test_no_clock_and_no_time_zone_leave_a_trace(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun after 2038 in one zone, finished two years ago in another."""
    expected = tree(dump_tiny(teacher_path, spec, data, tmp_path / "plain.zarr")[0].cache.path)
    teacher = load_teacher(str(teacher_path), device=CPU)

    def go_on(year: int, zone: str, interrupt: After) -> None:
        now = dt.datetime(year, 3, 1, tzinfo=dt.UTC)
        clock = SimpleNamespace(UTC=dt.UTC, datetime=SimpleNamespace(now=lambda tz: now.astimezone(tz)))
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            patch.setattr("bancache.system.locks.dt", clock)
            patch.setattr(time, "time", now.timestamp)
            time.tzset()
            dump(
                teacher, data, spec, tmp_path / "a.zarr", settings(teacher), device=CPU, interrupt=interrupt
            )  # fmt: skip

    with pytest.raises(StoppedError, match="2 of 4"):
        go_on(2040, "Pacific/Kiritimati", After(2))
    go_on(2024, "America/St_Johns", After(9))
    time.tzset()
    assert tree(tmp_path / "a.zarr") == expected


def test_without_a_locale_odd_names_are_names(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    path = tmp_path / "größe 1 [é].zarr"
    dump_tiny(teacher_path, spec, data, path)
    plain = {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bancache_cli", "verify", os.fsencode(path)],
        env={**plain, "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(path) + b": intact\n"


def test_a_library_that_renders_otherwise_is_noticed(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the last bit of a pixel: no dump goes on, no student learns, no teacher is asked again."""
    path = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")[0].cache.path
    before = tree(path)
    real = LatticeRenderer.render

    def otherwise(self: LatticeRenderer, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        pixels = real(self, samples, ids)
        pixels[0, 0, 0, 0] = torch.nextafter(pixels[0, 0, 0, 0], torch.tensor(9.0))
        return pixels

    monkeypatch.setattr(LatticeRenderer, "render", otherwise)
    with pytest.raises(MismatchError, match=r"pixels: .*golden \w+.*golden \w+"):
        dump_tiny(teacher_path, spec, data, path)
    with pytest.raises(MismatchError, match="pixels"):
        open_loader(path)
    refuse(4, ("pixels",), "verify", path, "--teacher", teacher_path, "-q", keep=path)
    refuse(4, ("pixels",), "extend", path, "--num-views", "5", "--out", tmp_path / "b.zarr", "-q", keep=path)
    assert tree(path) == before
    assert open_cache(path).read_view(0)


def test_a_model_that_runs_out_of_memory_gets_one_line(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in a third-party model is our error, unlike the model's other exceptions."""
    (tmp_path / "hungry.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, batch):\n"
        "        return torch.ones(len(batch), 3, 1 << 50).sum(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = (
        "--teacher",
        "hungry:Net",
        "--data",
        f"npz:{npz}",
        "--views",
        "flip",
        "--out",
        tmp_path / "a.zarr",
        *("--mean", "data"),
    )
    refuse(1, ("cpu", "memory", "images"), "dump", *named, "-q", hint="--batch-size")
    assert not (tmp_path / "a.zarr").exists()
