"""A cache that grew is, byte for byte, the cache that would have been dumped at once; nothing is lost on the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from contracts.failing import Killed, fail_at
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.tiny import CPU, FEW, MANY, After, dump_tiny

from bancache.cache.manifest_io import read_manifest
from bancache.cache.reader import open_cache
from bancache.cache.replace import beside, recover
from bancache.dumping import DumpResult
from bancache.dumping.extend import extend
from bancache.errors import BusyError, CacheDamagedError, MismatchError, StoppedError, UsageError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import Interrupt
from bancache.system.locks import exclusive, exclusive_file
from bancache.system.progress import Silent


def grown(path: Path, teacher: Teacher, data: ImageSet, views: int = MANY, **more: object) -> DumpResult:
    return extend(path, teacher, data, views, device=CPU, **more)  # type: ignore[arg-type]


def test_it_takes_the_place_of_the_old_one_and_asks_for_new_views_only(
    few: Path, dumped: Path, teacher: Teacher, data: ImageSet
) -> None:
    inodes = {p.relative_to(few): p.stat().st_ino for p in few.glob("q/c/*/*/*")}
    assert len(inodes) == 3 * FEW
    result = grown(few, teacher, data)
    assert result.entries == (MANY - FEW) * 96
    assert result.cache.manifest.num_views == MANY
    assert tree(few) == tree(dumped / "many.zarr")
    assert {p: (few / p).stat().st_ino for p in inodes} == inodes
    assert [p.name for p in few.parent.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("encoding", ["float32", "topk-2"])
def test_of_every_encoding_it_is_what_one_dump_would_be(
    memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, encoding: str
) -> None:
    for name, views in (
        ("a.zarr", 2),
        ("b.zarr", 17),
    ):  # sixteen views and fewer have golden pixels of their own
        _, teacher = dump_tiny(teacher_path, spec, data, memory / name, num_views=views, encoding=encoding)
    grown(memory / "a.zarr", teacher, data, 17)
    assert tree(memory / "a.zarr") == tree(memory / "b.zarr")


def test_elsewhere_it_leaves_the_old_one_as_it_was_and_what_it_shares_with_it(
    few: Path, dumped: Path, teacher: Teacher, data: ImageSet, teacher_path: Path, spec: DataSpec
) -> None:
    """The two have files in common; whoever overwrites one of them does not touch the other's."""
    new = few.parent / "new" / "b.zarr"
    grown(few, teacher, data, out=new)
    assert tree(few) == tree(dumped / "few.zarr")
    assert tree(new) == tree(dumped / "many.zarr")
    assert (few / "q/c/0/0/0").samefile(new / "q/c/0/0/0")
    dump_tiny(teacher_path, spec, data, few, num_views=2, encoding="root8", overwrite=True)
    assert tree(new) == tree(dumped / "many.zarr")


def test_where_links_cannot_be_it_copies(
    few: Path, dumped: Path, teacher: Teacher, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    grown(few, teacher, data, out=few.parent / "b.zarr")
    assert tree(few.parent / "b.zarr") == tree(dumped / "many.zarr")
    assert (few / "q/c/0/0/0").stat().st_nlink == 1


def test_a_cache_that_has_as_many_views_is_left_alone(
    few: Path, dumped: Path, teacher: Teacher, data: ImageSet
) -> None:
    assert grown(few, teacher, data, FEW).entries == 0
    assert tree(few) == tree(dumped / "few.zarr")


# Killed, stopped, without power.


@pytest.fixture
def tiny(memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> tuple[Path, dict[str, bytes]]:
    """One view in one shard, and what two views of it are."""
    dump_tiny(teacher_path, spec, data, memory / "whole.zarr", num_views=2)
    expected = tree(memory / "whole.zarr")
    shutil.rmtree(memory / "whole.zarr")
    (memory / "x").mkdir()
    dump_tiny(teacher_path, spec, data, memory / "x" / "a.zarr", num_views=1)
    return memory / "x" / "a.zarr", expected


@pytest.mark.parametrize("call", [2, 9, 16, 23, 30, 37, 44, 51, 58])
def test_killed_it_leaves_a_complete_cache_and_the_same_command_goes_on(
    tiny: tuple[Path, dict[str, bytes]],
    teacher: Teacher,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    """At some calls; tests/cache/test_import_shards.py kills at every one, without a teacher."""
    path, expected = tiny
    with monkeypatch.context() as patch:
        fail_at(patch, call, Killed)
        with pytest.raises(Killed):
            grown(path, teacher, data, 2)
    recover(path)
    assert open_cache(path).read_view(0)
    grown(path, teacher, data, 2)
    assert tree(path) == expected
    assert [p.name for p in path.parent.iterdir()] == ["a.zarr"]


def test_where_the_teacher_answers_with_other_bits_it_says_so(
    memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine; on the same one it says nothing."""
    _, teacher = dump_tiny(teacher_path, spec, data, memory / "a.zarr", num_views=1, encoding="float32")
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    grown(memory / "a.zarr", teacher, data, 2, out=memory / "b.zarr", progress=Listening())
    assert not [text for text in notes if "other last bits" in text]
    real = Teacher.logits
    monkeypatch.setattr(Teacher, "logits", lambda self, images: real(self, images) * (1 + 1e-6))
    grown(memory / "a.zarr", teacher, data, 2, out=memory / "c.zarr", progress=Listening())
    assert len([text for text in notes if "other last bits than in" in text]) == 1


def test_stopped_it_keeps_what_was_done(few: Path, dumped: Path, teacher: Teacher, data: ImageSet) -> None:
    with pytest.raises(StoppedError, match="stopped: 11 of 15 shards"):
        grown(few, teacher, data, interrupt=After(2))
    assert tree(few) == tree(dumped / "few.zarr")
    assert read_manifest(beside(few))["complete"] is False
    assert grown(few, teacher, data).entries == 4 * 32
    assert tree(few) == tree(dumped / "many.zarr")


def test_nobody_extends_a_cache_that_somebody_else_extends_or_writes(
    few: Path, teacher: Teacher, data: ImageSet, dumped: Path
) -> None:
    with exclusive_file(beside(few)), pytest.raises(BusyError, match="in use by pid"):
        grown(few, teacher, data)
    with exclusive(few), pytest.raises(BusyError, match="in use by pid"):
        grown(few, teacher, data)
    assert grown(few, teacher, data).entries == 0
    assert tree(few) == tree(dumped / "many.zarr")


# Refused.


def test_another_teacher_or_other_images_are_refused(
    few: Path, teacher: Teacher, data: ImageSet, teacher_path: Path, memory: Path, dumped: Path
) -> None:
    stored = load_checkpoint(teacher_path)
    state = {k: v * 1.01 if v.is_floating_point() else v for k, v in stored.state.items()}
    save_checkpoint(memory / "other.pt", state, stored.header)
    with pytest.raises(MismatchError, match=r"teacher: made with '\w{12}', but this run has '\w{12}'"):
        grown(few, load_teacher(str(memory / "other.pt"), device=CPU), data)
    with pytest.raises(MismatchError, match="data set: made with"):
        grown(few, teacher, data.first(90))
    half = load_teacher(str(teacher_path), device=CPU, precision="bfloat16")
    with pytest.raises(
        MismatchError, match=r"forward pass: made with .*float32.*, but this run has .*bfloat16"
    ):
        grown(few, half, data)
    assert tree(few) == tree(dumped / "few.zarr")


def test_views_that_come_out_as_other_pixels_are_refused(few: Path, teacher: Teacher, data: ImageSet) -> None:
    reseal(few, lambda stored: stored["promise"]["pixels"].update(golden="0" * 64))
    with pytest.raises(MismatchError, match="pixels of the same views: made with '000000000000'"):
        grown(few, teacher, data)


def test_fewer_views_or_more_than_there_are_are_refused(few: Path, teacher: Teacher, data: ImageSet) -> None:
    with pytest.raises(UsageError, match="has 3 views, more than 2") as caught:
        grown(few, teacher, data, 2)
    assert caught.value.hint == f"bancache prune {few} --num-views 2 makes it smaller"
    with pytest.raises(UsageError, match="views 'crop1-flip' are 18, so --num-views cannot be 19"):
        grown(few, teacher, data, 19)


def test_a_cache_without_the_sums_of_its_views_is_refused(
    few: Path, teacher: Teacher, data: ImageSet
) -> None:
    """As earlier versions left them: what a larger one lost could not be said."""
    reseal(few, lambda stored: stored["summary"].pop("slots"))
    with pytest.raises(UsageError, match="does not keep the sums of its views"):
        grown(few, teacher, data)


def test_a_damaged_shard_is_not_taken_over(few: Path, teacher: Teacher, data: ImageSet) -> None:
    chunk = few / "q" / "c" / "1" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(CacheDamagedError, match=r"shard 5 \(view 1, samples 64 to 95\) is damaged") as caught:
        grown(few, teacher, data)
    assert caught.value.hint == f"bancache repair {few} makes it anew"


def test_a_cache_that_changes_meanwhile_is_not_replaced(
    few: Path, teacher: Teacher, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meddling(Interrupt):
        def check(self, progress: str, hint: str = "") -> None:
            reseal(few, lambda stored: stored["summary"].update(note="another"))

    with pytest.raises(CacheDamagedError, match="was changed meanwhile"):
        grown(few, teacher, data, interrupt=Meddling())
    assert open_cache(few).manifest.num_views == FEW
    assert open_cache(beside(few)).manifest.num_views == MANY


def test_names_with_brackets_and_spaces_are_names(
    few: Path, dumped: Path, teacher: Teacher, data: ImageSet
) -> None:
    odd = few.rename(few.with_name("a [1]* ü.zarr"))
    grown(odd, teacher, data)
    assert tree(odd) == tree(dumped / "many.zarr")
    assert list(odd.parent.iterdir()) == [odd]
