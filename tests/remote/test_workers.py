"""Workers write straight to an object store: one command gives them shards, and the bytes are those of one process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.calling import refuse, succeed
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, THREE_SHARDS, After, settings
from contracts.workers import cluster
from remote.test_writing import objects

import bancache as bc
from bancache.cluster import tasks
from bancache.dumping import dump
from bancache.errors import MismatchError, StoppedError, UsageError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import device as devices
from bancache.system.bucket import Bucket

# Dask says so on a machine that is busy.
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning")
THREE = ("--num-views", "3", "--batch-size", "8")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with cluster() as found:
        yield found.scheduler_address
    logging.getLogger("distributed").setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def _nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)
    tasks._OPEN.of = None


@pytest.fixture
def begun(address: str, teacher_path: Path, spec: DataSpec, data: ImageSet) -> str:
    """A cache of twelve shards in profile compact, of which two are done."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    asked = settings(teacher, profile="compact")
    with pytest.raises(StoppedError):
        dump(teacher, data, spec, address, asked, device=CPU, interrupt=After(2))
    return address


def test_workers_fill_an_address(scheduler: str, teacher_path: Path, address: str, tmp_path: Path) -> None:
    argv = ("dump", "--teacher", teacher_path, *THREE, "--profile", "compact")
    told = succeed(*argv, "--out", tmp_path / "a.zarr")
    said = succeed(*argv, "--out", address, "--scheduler", scheduler)
    assert objects(address) == tree(tmp_path / "a.zarr")
    assert [said[key] for key in ("digest", "out")] == [told["digest"], address]
    again = succeed(*argv, "--out", address, "--scheduler", scheduler)
    assert (again["images_per_second"], again["digest"]) == (None, told["digest"])
    again = succeed(*argv, "--out", address, "--scheduler", scheduler, "--overwrite")
    assert (again["images_per_second"] > 0, again["digest"]) == (True, told["digest"])


def test_any_process_does_any_shard_at_an_address_and_dump_completes_the_cache(
    begun: str, tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    left = bc.plan_shards(begun)
    assert left == list(range(2, 12))
    with pytest.raises(UsageError, match="view 0"):
        bc.dump_shard(begun, 5)
    assert [bc.dump_shard(begun, shard) for shard in [2, *reversed(left)]] == [True] * 10 + [False]
    assert bc.plan_shards(begun) == []
    teacher = load_teacher(str(teacher_path), device=CPU)
    for out in (begun, tmp_path / "a.zarr"):
        dump(teacher, data, spec, out, settings(teacher, profile="compact"), device=CPU)
    assert objects(begun) == tree(tmp_path / "a.zarr")
    assert not bc.dump_shard(begun, 3)


def test_a_worker_lists_nothing_for_a_shard(begun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand workers, each would list what all have done."""
    bc.dump_shard(begun, 2)
    monkeypatch.delattr(Bucket, "listed")
    assert bc.dump_shard(begun, 3)
    assert not bc.dump_shard(begun, 3)


def test_a_cache_that_a_worker_does_not_see_or_that_is_another_is_refused(begun: str) -> None:
    found = tasks.attempt(tasks.own_versions(), tasks.write_shard, f"{begun}.none", "0", 2, tasks.Origin())
    assert found.error is not None
    assert "AWS_" in found.error.hint
    with pytest.raises(MismatchError):
        tasks.write_shard(begun, "0" * 64, 2, tasks.Origin())


def test_another_kind_of_device_is_refused_at_an_address_unless_asked_for(
    begun: str, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"device": "NVIDIA H200"}
    monkeypatch.setattr(devices, "arithmetic", lambda device: other)
    monkeypatch.setattr("bancache.dumping.recompute.arithmetic", lambda device: other)
    with pytest.raises(MismatchError, match="NVIDIA H200"):
        bc.dump_shard(begun, 2, device="cpu")
    assert bc.dump_shard(begun, 2, device="cpu", mixed=True)
    teacher = load_teacher(str(teacher_path), device=CPU)
    asked = settings(teacher, profile="compact")
    with pytest.raises(MismatchError, match="NVIDIA H200"):
        dump(teacher, data, spec, begun, asked, device=CPU)
    dump(teacher, data, spec, begun, asked, device=CPU, mixed=True)
    assert succeed("info", begun)["mixed_devices"] == [other]


def test_a_store_that_workers_do_not_share_is_said(
    scheduler: str, teacher_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("dump", "--teacher", teacher_path, *THREE, "--out", address, "--scheduler", scheduler, "-q")
    real = tasks.write_shard
    monkeypatch.setattr(
        "bancache.cluster.fill.write_shard", lambda cache, *more: real(f"{cache}.other", *more)
    )
    refuse(3, (address, "on "), *argv, hint="AWS_")
