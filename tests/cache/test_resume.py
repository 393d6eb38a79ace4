"""A cache goes on where it stopped, only for who began it, and one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from contracts.damage import DAMAGES
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.small_cache import (
    DATA,
    Q,
    check_slab,
    facts,
    fields,
    manifest,
    summarise,
    write,
    write_some,
)

from bancache.cache.layout import Region
from bancache.cache.reader import open_cache
from bancache.cache.sealed import seal
from bancache.cache.writer import open_writer
from bancache.errors import BusyError, CacheDamagedError, MismatchError, UsageError
from bancache.fields import FieldSpec

pytestmark = pytest.mark.usefixtures("small_regions")


@pytest.fixture
def undisturbed(sound: Path) -> dict[str, bytes]:
    return tree(sound)


def pending(path: Path) -> list[int]:
    with open_writer(path, manifest()) as writer:
        assert writer is not None
        return [region.index for region in writer.pending()]


def test_the_rest_is_written_and_nothing_shows_that_there_was_a_pause(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write_some(tmp_path / "a.zarr", [4, 0, 8])
    assert pending(path) == [1, 2, 3, 5, 6, 7]
    write_some(path, [7])
    write_some(path, [])
    assert pending(path) == [1, 2, 3, 5, 6]
    assert tree(write(path)) == undisturbed


def test_versions_and_paths_of_who_goes_on_do_not_show(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    write(path, manifest(created_with={"bancache": "99"}))
    assert tree(path) == undisturbed


def test_facts_go_through_the_disk_unchanged(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", range(9))
    seen: list[dict[str, Any]] = []

    def look(found: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(found)
        return summarise(found)

    with open_writer(path, manifest()) as writer:
        assert writer is not None
        writer.finish(look)
    assert seen == [facts(Region(0, 0, 0, 0, rows)) for rows in (14, 14, 12)] * 3


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("file", ["q/c/1/2/0", "shift/c/1/2", ".regions/000005.json"])
def test_a_region_that_is_not_as_recorded_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    """The last block of a slot, whose chunk is filled up: Zarr would read what is there before writing."""
    path = write_some(tmp_path / "a.zarr", range(9))
    other = {"q/c/1/2/0": "q/c/0/2/0", "shift/c/1/2": "shift/c/0/2"}.get(file, ".regions/000002.json")
    DAMAGES[way](path / file, path / other)
    for leftover in path.rglob("*.aside"):
        leftover.rename(tmp_path / "aside")
    if (path / file).is_dir():
        (path / file).rmdir()
    assert 5 in pending(path) or (way == "swapped" and ".regions" in file)
    assert tree(write(path)) == undisturbed


@pytest.mark.parametrize("way", ["flipped", "truncated", "emptied", "deleted", "appended to"])
@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json", "shift/zarr.json"])
def test_a_damaged_description_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    path = write_some(tmp_path / "a.zarr", range(5))
    DAMAGES[way](path / file, path / "manifest.json")
    assert tree(write(path)) == undisturbed


def test_a_description_damaged_while_the_rest_is_written_is_not_vouched_for(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.zarr", manifest()) as writer:
        assert writer is not None
        for region in writer.pending():
            writer.write_region(region, fields(manifest(), region), facts(region))
        DAMAGES["flipped"](tmp_path / "a.zarr" / "q" / "zarr.json", tmp_path)
        writer.finish(summarise)
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json is damaged"):
        open_cache(tmp_path / "a.zarr").slab(0)


@pytest.mark.parametrize(
    "change",
    [
        {"promise": "f" * 64},
        {"region": 9},
        {"region": -1},
        {"region": True},
        {"region": "0"},
        {"files": {}},
        {"files": {"q/c/0/0/0": [1, "f" * 64], "../../etc/passwd": [1, "f" * 64]}},
        {"files": {"q/c/0/0/0": 1, "shift/c/0/0": 2}},
    ],
)
def test_a_record_that_no_writer_of_this_cache_made_is_not_believed(
    tmp_path: Path, undisturbed: dict[str, bytes], change: dict[str, Any]
) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    record = json.loads((path / ".regions" / "000000.json").read_text())
    del record["digest"]
    (path / ".regions" / "000000.json").write_text(json.dumps(seal({**record, **change})))
    (path / ".regions" / "stray.json").write_text("[1, 2]")
    assert pending(path) == list(range(9))
    assert tree(write(path)) == undisturbed


def test_a_record_with_another_fact_is_not_believed(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Its files are as written, but what the summary is made of is not."""
    path = write_some(tmp_path / "a.zarr", range(9))
    record = path / ".regions" / "000004.json"
    record.write_text(record.read_text().replace('"rows": 14', '"rows": 15'))
    assert pending(path) == [4]
    assert tree(write(path)) == undisturbed


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    (
        {"dataset": {"fingerprint": "a" * 64}},
        "data set: made with 'dddddddddddd', but this run has 'aaaaaaaaaaaa'",
    ),
    (
        {"teacher": {"fingerprint": "a" * 64}},
        "teacher: made with 'eeeeeeeeeeee', but this run has 'aaaaaaaaaaaa'",
    ),
    (
        {"view_space": {"id": "lattice-1", "pad": 4}},
        "view space: made with id lattice-1, pad 1, but this run has id lattice-1, pad 4",
    ),
    ({"slots": 4}, "number of views: made with 3, but this run has 4"),
    ({"encoding": {"name": "root4"}}, "encoding: made with name test, but this run has name root4"),
    (
        {"fields": (Q, FieldSpec("shift", "float16", (), ()))},
        "arrays: made with q uint8[10], shift float32[], but this run has q uint8[10], shift float16[]",
    ),
    ({"classes": 11}, "classes: made with 10, but this run has 11"),
    ({"samples": 41}, "samples: made with 40, but this run has 41"),
    ({"pixels": {"golden": "01"}}, "pixels: made with golden 00, but this run has golden 01"),
    (
        {"compute": {"batch_size": 99}},
        "teacher's forward pass: made with batch_size 100, but this run has batch_size 99",
    ),
]


@pytest.mark.parametrize(("change", "said"), DIFFERENT)
@pytest.mark.parametrize("complete", [False, True])
def test_another_promise_is_refused_with_both_values(
    tmp_path: Path, change: dict[str, Any], said: str, complete: bool
) -> None:
    path = write(tmp_path / "a.zarr") if complete else write_some(tmp_path / "a.zarr", [0])
    before = tree(path)
    with pytest.raises(MismatchError, match=f"^{re.escape(said)}$") as caught:
        write(path, manifest(**change))
    assert caught.value.hint == "use the same settings, another --out, or --overwrite to start anew"
    assert tree(path) == before


def test_a_complete_cache_is_left_alone(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = write(tmp_path / "a.zarr")
    with open_writer(path, manifest()) as writer:
        assert writer is None
    assert tree(path) == undisturbed


def test_what_a_writer_killed_at_its_end_left_is_cleared(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write(tmp_path / "a.zarr")
    (path / ".regions").mkdir()
    (path / ".regions" / "000000.json").write_text("{}")
    (path / "q" / "zarr.json.12345678.partial").write_text("half")
    (path / ".writer.json").write_text("{}")
    assert tree(write(path)) == undisturbed


@pytest.mark.parametrize("complete", [False, True])
def test_overwriting_leaves_nothing_of_what_was_there(tmp_path: Path, complete: bool) -> None:
    old = manifest(
        teacher={"fingerprint": "0" * 64}, fields=(FieldSpec("old", "float16", (3,), ("class",)), Q)
    )
    path = write(tmp_path / "a.zarr", old) if complete else write_some(tmp_path / "a.zarr", [1, 5], old)
    assert tree(write(path, overwrite=True)) == tree(write(tmp_path / "b.zarr"))


def test_overwriting_removes_only_what_a_cache_consists_of(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    (path / "notes.txt").write_text("mine")
    (path / "runs").mkdir()
    (path / "runs" / "results.jsonl").write_text("{}")
    write(path, overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"
    assert (path / "runs" / "results.jsonl").read_text() == "{}"


def test_overwriting_that_was_killed_goes_on_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, the folder is still taken for a cache, and nothing of the old one is believed."""
    new, old = (
        manifest(samples=20, slots=1, fields=(Q,), teacher={"fingerprint": letter * 64}) for letter in "ef"
    )
    expected = tree(write(tmp_path / "new.zarr", new))
    write(tmp_path / "old.zarr", old)
    for number in range(1, 200):
        path = shutil.copytree(tmp_path / "old.zarr", tmp_path / f"{number}.zarr")
        with monkeypatch.context() as patch:
            fail_at(patch, number, Killed)
            try:
                write(path, new, overwrite=True)
                break
            except Killed:
                pass
        assert tree(write(path, new, overwrite=True)) == expected
    assert number > 40


FOREIGN: dict[str, dict[str, str]] = {
    "a file": {"thesis.tex": "x"},
    "a hidden file": {".git": "x"},
    "somebody's manifest": {"manifest.json": '{"name": "a web page"}', "index.html": "x"},
    "a manifest of nothing": {"manifest.json": "", "index.html": "x"},
    "a plain Zarr store": {"zarr.json": '{"zarr_format": 3, "node_type": "group"}'},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_that_is_somebody_elses_is_refused_untouched(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    for name, content in FOREIGN[kind].items():
        (tmp_path / name).write_text(content)
    before = tree(tmp_path)
    with pytest.raises((UsageError, CacheDamagedError)) as caught:
        write(tmp_path, overwrite=overwrite)
    assert caught.value.hint
    assert tree(tmp_path) == before


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(UsageError, match=r"a\.zarr exists and is not a cache"):
        write(tmp_path / "a.zarr")


def test_a_newer_cache_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    (path / "manifest.json").write_text('{"format_version": 2, "promise": {}, "complete": true}')
    before = tree(path)
    with pytest.raises(MismatchError, match="the cache has format 2, this bancache reads up to 1"):
        write(path, overwrite=True)
    assert tree(path) == before


def test_a_folder_that_leads_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    (path / "q").rename(tmp_path / "elsewhere")
    (path / "q").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    for overwrite in (False, True):
        with pytest.raises(CacheDamagedError, match="q is a link"):
            write(path, overwrite=overwrite)
    assert tree(tmp_path / "elsewhere") == before


def test_a_link_in_the_place_of_the_writers_note_is_not_followed(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    (tmp_path / "precious").write_text("mine")
    (path / ".writer.json").symlink_to(tmp_path / "precious")
    write(path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_second_writer_is_told_who_is_there_and_since_when(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    with open_writer(path, manifest()):
        said = (
            rf"a\.zarr is in use by pid {os.getpid()} on {re.escape(socket.gethostname())} "
            r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"
        )
        with pytest.raises(BusyError, match=said) as caught, open_writer(path, manifest()):
            pass
    assert caught.value.hint == "wait for it, or choose another --out"
    check = write(path)
    check_slab(check, 0)


def test_a_holder_that_left_no_note_is_still_respected(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="is in use by another process"):
            write(path)
    finally:
        os.close(descriptor)
    write(path)


def test_a_reader_needs_no_lock(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert open_cache(path).manifest.dataset["fingerprint"] == DATA
    finally:
        os.close(descriptor)


def test_a_failed_writer_leaves_no_note_of_itself(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])

    def fail() -> None:
        with open_writer(path, manifest()):
            assert (path / ".writer.json").is_file()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert not (path / ".writer.json").exists()
