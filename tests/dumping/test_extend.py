"""An extended cache is, byte for byte, a fresh dump of all views; the old cache is not changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import require_commands
from contracts.failing import Killed, fail_at
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.tiny import CPU, FEW, MANY, After, dump_tiny
from sources.tiny import Heard

from bancache.cache.manifest_io import read_manifest
from bancache.dumping import DumpResult
from bancache.dumping.resize import extend
from bancache.errors import BusyError, CacheDamagedError, MismatchError, StoppedError, UsageError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.locks import exclusive


@pytest.fixture
def new(memory: Path) -> Path:
    return memory / "new" / "b.zarr"


def extended(
    path: Path, teacher: Teacher, data: ImageSet, out: Path, views: int = MANY, **more: Any
) -> DumpResult:
    return extend(path, teacher, data, views, out=out, device=CPU, **more)


def test_it_is_a_dump_of_all_views_and_runs_the_teacher_on_new_ones_only(
    few: Path, dumped: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    result = extended(few, teacher, data, new)
    assert result.num_pairs == (MANY - FEW) * 96
    assert result.cache.manifest.num_views == MANY
    assert tree(new) == tree(dumped / "many.zarr")
    assert tree(few) == tree(dumped / "few.zarr")
    shared = [path.samefile(new / path.relative_to(few)) for path in few.glob("q/c/*/*/*")]
    assert shared == [True] * 3 * FEW


@pytest.mark.parametrize("encoding", ["float32", "topk-2"])
def test_of_every_encoding_it_is_what_one_dump_would_be(
    memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, encoding: str
) -> None:
    for name, views in (
        ("a.zarr", 2),
        ("b.zarr", 17),
    ):  # sixteen views and fewer have golden pixels of their own
        _, teacher = dump_tiny(teacher_path, spec, data, memory / name, num_views=views, encoding=encoding)
    extended(memory / "a.zarr", teacher, data, memory / "c.zarr", 17)
    assert tree(memory / "c.zarr") == tree(memory / "b.zarr")


def test_overwriting_the_old_cache_leaves_the_shared_files_of_the_new_one(
    few: Path, dumped: Path, new: Path, teacher: Teacher, data: ImageSet, teacher_path: Path, spec: DataSpec
) -> None:
    extended(few, teacher, data, new)
    dump_tiny(teacher_path, spec, data, few, num_views=2, encoding="root8", overwrite=True)
    assert tree(new) == tree(dumped / "many.zarr")


def test_where_links_cannot_be_it_copies(
    few: Path, dumped: Path, new: Path, teacher: Teacher, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    extended(few, teacher, data, new)
    assert tree(new) == tree(dumped / "many.zarr")
    assert (few / "q/c/0/0/0").stat().st_nlink == 1


def test_with_as_many_views_it_is_a_copy_and_the_teacher_is_not_needed(
    few: Path, dumped: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    assert extended(few, teacher, data, new, FEW).num_pairs == 0
    assert tree(new) == tree(dumped / "few.zarr")


# Killed, stopped, without power.


@pytest.fixture
def tiny(memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> tuple[Path, dict[str, bytes]]:
    """One view in one shard, and what two views of it are."""
    dump_tiny(teacher_path, spec, data, memory / "whole.zarr", num_views=2)
    expected = tree(memory / "whole.zarr")
    shutil.rmtree(memory / "whole.zarr")
    dump_tiny(teacher_path, spec, data, memory / "a.zarr", num_views=1)
    return memory / "a.zarr", expected


@pytest.mark.parametrize("call", [2, 9, 16, 23, 30, 37, 44, 51])
def test_killed_it_leaves_the_old_cache_as_it_was_and_the_same_call_goes_on(
    tiny: tuple[Path, dict[str, bytes]],
    new: Path,
    teacher: Teacher,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    """Before some calls; tests/cache/test_import_shards.py kills before every one, without a teacher."""
    path, expected = tiny
    before = tree(path)
    with monkeypatch.context() as patch:
        fail_at(patch, call, Killed)
        with pytest.raises(Killed):
            extended(path, teacher, data, new, 2)
    assert tree(path) == before
    extended(path, teacher, data, new, 2)
    assert tree(new) == expected


def test_it_warns_that_the_teacher_has_other_last_bits_here(
    memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine; on the same one there is no such warning."""
    _, teacher = dump_tiny(teacher_path, spec, data, memory / "a.zarr", num_views=1, encoding="float32")
    told = Heard()
    extended(memory / "a.zarr", teacher, data, memory / "b.zarr", 2, progress=told)
    assert told.warnings == []
    real = Teacher.logits
    monkeypatch.setattr(Teacher, "logits", lambda self, images: real(self, images) * (1 + 1e-6))
    extended(memory / "a.zarr", teacher, data, memory / "c.zarr", 2, progress=told)
    (warning,) = told.warnings
    assert "mixture" in warning


def test_stopped_it_keeps_what_was_done(
    few: Path, dumped: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    with pytest.raises(StoppedError, match="11 of 15"):
        extended(few, teacher, data, new, interrupt=After(2))
    assert read_manifest(new)["complete"] is False
    assert extended(few, teacher, data, new).num_pairs == 4 * 32
    assert tree(new) == tree(dumped / "many.zarr")


def test_two_processes_do_not_write_one_new_cache(
    few: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    new.mkdir(parents=True)
    with exclusive(new), pytest.raises(BusyError, match=str(os.getpid())):
        extended(few, teacher, data, new)


# Refused.


def test_another_teacher_or_other_images_are_refused(
    few: Path, new: Path, teacher: Teacher, data: ImageSet, teacher_path: Path, memory: Path
) -> None:
    stored = load_checkpoint(teacher_path)
    state = {k: v * 1.01 if v.is_floating_point() else v for k, v in stored.state.items()}
    save_checkpoint(memory / "other.pt", state, stored.header)
    other = load_teacher(str(memory / "other.pt"), device=CPU)
    with pytest.raises(MismatchError, match=f"{teacher.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        extended(few, other, data, new)
    with pytest.raises(MismatchError, match=data.fingerprint[:12]):
        extended(few, teacher, data.first(90), new)
    assert not new.exists()
    half = load_teacher(str(teacher_path), device=CPU, precision="bfloat16")
    with pytest.raises(MismatchError, match=r"float32.*bfloat16"):
        extended(few, half, data, new)


def test_views_that_are_rendered_to_other_pixels_are_refused(
    few: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    reseal(few, lambda stored: stored["promise"]["pixels"].update(golden="0" * 64))
    with pytest.raises(MismatchError, match="000000000000"):
        extended(few, teacher, data, new)


def test_fewer_views_or_more_than_there_are_are_refused(
    few: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    with pytest.raises(UsageError, match=r"\b3\b.*\b2\b") as caught:
        extended(few, teacher, data, new, 2)
    assert f"bancache prune {few} --num-views 2" in caught.value.hint
    require_commands(caught.value.hint)
    with pytest.raises(UsageError, match=r"crop1-flip.*\b18\b.*\b19\b"):
        extended(few, teacher, data, new, 19)


def test_the_old_cache_is_not_written_over(few: Path, dumped: Path, teacher: Teacher, data: ImageSet) -> None:
    with pytest.raises(UsageError) as caught:
        extended(few, teacher, data, few.parent / "." / few.name)
    assert "--out" in caught.value.hint
    assert tree(few) == tree(dumped / "few.zarr")


def test_a_cache_without_the_sums_of_its_views_is_refused(
    few: Path, new: Path, teacher: Teacher, data: ImageSet
) -> None:
    """Caches of earlier versions: the fidelity of a larger one would be unknown."""
    reseal(few, lambda stored: stored["summary"].pop("slots"))
    with pytest.raises(UsageError) as caught:
        extended(few, teacher, data, new)
    assert "bancache dump" in caught.value.hint


def test_a_damaged_shard_is_not_imported(few: Path, new: Path, teacher: Teacher, data: ImageSet) -> None:
    chunk = few / "q" / "c" / "1" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(CacheDamagedError, match=r"shard 5 \(view 1, samples 64 to 95\)") as caught:
        extended(few, teacher, data, new)
    assert f"bancache repair {few}" in caught.value.hint
