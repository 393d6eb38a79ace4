"""A shard is a task: pure, done when its record lies in the cache, and small enough to send."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.killing import tree
from contracts.memory import folder_in_memory
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, THREE_SHARDS, After, dump_tiny, settings

import bancache as bc
from bancache.cache import Manifest
from bancache.cache.manifest_io import manifest_of, read_manifest
from bancache.cluster import tasks
from bancache.cluster.tasks import Origin, attempt, own_versions, write_shard
from bancache.dumping import dump
from bancache.dumping.forward import TeacherForward
from bancache.errors import CacheDamagedError, MismatchError, StoppedError, UsageError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)


@pytest.fixture(scope="module")
def begun(teacher_path: Path, spec: DataSpec, data: ImageSet) -> Iterator[tuple[Path, Path]]:
    """A complete cache of twelve shards in profile compact, and one of which two are done."""
    with folder_in_memory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        dump_tiny(teacher_path, spec, data, folder / "whole.zarr", profile="compact")
        teacher = load_teacher(str(teacher_path), device=CPU)
        asked = settings(teacher, profile="compact")
        with pytest.raises(StoppedError):
            dump(teacher, data, spec, folder / "begun.zarr", asked, device=CPU, interrupt=After(2))
        yield folder / "whole.zarr", folder / "begun.zarr"


@pytest.fixture
def copy(begun: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun[1], tmp_path / "a.zarr"))


def test_any_process_does_any_shard_in_any_order_and_dump_completes_the_cache(
    begun: tuple[Path, Path], copy: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    left = bc.plan_shards(copy)
    assert left == list(range(2, 12))
    assert [bc.dump_shard(copy, shard) for shard in [2, *reversed(left)]] == [True] * 10 + [False]
    assert bc.plan_shards(copy) == []
    done, _ = dump_tiny(teacher_path, spec, data, copy, profile="compact")
    assert (done.num_pairs, tree(copy)) == (0, tree(begun[0]))
    assert bc.plan_shards(copy) == []
    assert not bc.dump_shard(copy, 3)
    assert tree(copy) == tree(begun[0])


def test_a_shard_that_needs_another_one_waits_for_it(copy: Path) -> None:
    with pytest.raises(UsageError, match="view 0") as refused:
        bc.dump_shard(copy, 5)
    assert "first" in refused.value.hint
    with pytest.raises(UsageError, match="12"):
        bc.dump_shard(copy, 12)


def test_the_teacher_and_the_images_are_opened_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = tasks._open_forward

    def open_forward(manifest: Manifest, origin: Origin, device: torch.device) -> TeacherForward:
        opened.append(origin)
        return real(manifest, origin, device)

    monkeypatch.setattr(tasks, "_open_forward", open_forward)
    tasks._OPEN.of = None
    assert [bc.dump_shard(copy, shard) for shard in (2, 3, 4)] == [True] * 3
    assert opened == [Origin()]


def test_a_warning_is_said_once_for_each_time_that_the_teacher_is_opened(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.dumping.run.mixture_warning", lambda writer, forward: "a mixture")
    tasks._OPEN.of = None
    fingerprint = manifest_of(read_manifest(copy)).fingerprint
    said = [write_shard(str(copy), fingerprint, shard, Origin()).warnings for shard in (2, 3)]
    assert said == [("a mixture",), ()]


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_worker_repeats_its_bits_if_the_cache_was_begun_so(
    copy: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    told: list[bool] = []
    monkeypatch.setattr("bancache.system.device.make_deterministic", lambda: told.append(True))
    manifest = manifest_of(read_manifest(copy))
    manifest = replace(manifest, compute={**manifest.compute, "deterministic": deterministic})
    tasks._device_of(manifest, Origin(device="cpu", mixed=True))
    assert told == [True] * deterministic


def test_another_teacher_is_refused(copy: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    before = tree(copy)
    with pytest.raises(UsageError, match="nobody"):
        bc.dump_shard(copy, 2, teacher="nobody:nothing")
    with pytest.raises(CacheDamagedError):
        bc.dump_shard(tmp_path / "none.zarr", 2)
    with pytest.raises(MismatchError) as refused:
        write_shard(str(copy), "0" * 64, 2, Origin())
    assert "same folder" in refused.value.hint
    assert tree(copy) == before


def test_a_task_is_a_few_hundred_bytes(copy: Path) -> None:
    fingerprint = manifest_of(read_manifest(copy)).fingerprint
    origin = Origin(((str(copy / "gen0.pt"), None),), f"npz:{copy}/data.npz", "auto")
    assert (
        len(pickle.dumps((attempt, own_versions(), write_shard, str(copy), fingerprint, 199_999, origin)))
        < 800
    )


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_of_another_version_is_refused_with_both(which: int) -> None:
    wanted = list(own_versions())
    wanted[which] = "0.0.9"
    outcome = attempt((wanted[0], wanted[1]), bc.plan_shards, "nowhere.zarr")
    assert isinstance(outcome.error, MismatchError)
    assert "0.0.9" in str(outcome.error)
    assert own_versions()[which] in str(outcome.error)
    again = pickle.loads(pickle.dumps(outcome))
    assert (str(again.error), again.error.hint) == (str(outcome.error), outcome.error.hint)
