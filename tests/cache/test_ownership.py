"""Which folders may be written: a cache is overwritten whole, other files never, and by one writer at a time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from contracts.failing import Killed, fail_at
from contracts.killing import tree
from contracts.small_cache import DATA, Q, check_view, make_manifest, write, write_some

from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import BusyError, CacheDamagedError, MismatchError, UsageError

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.mark.parametrize("complete", [False, True])
def test_overwriting_leaves_nothing_of_the_old_cache(tmp_path: Path, complete: bool) -> None:
    old = make_manifest(
        teacher={"fingerprint": "0" * 64}, fields=(FieldSpec("old", "float16", (3,), ("class",)), Q)
    )
    path = write(tmp_path / "a.zarr", old) if complete else write_some(tmp_path / "a.zarr", [1, 5], old)
    assert tree(write(path, overwrite=True)) == tree(write(tmp_path / "b.zarr"))


def test_overwriting_removes_only_the_files_of_a_cache(tmp_path: Path) -> None:
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
        make_manifest(samples=20, num_views=1, fields=(Q,), teacher={"fingerprint": letter * 64})
        for letter in "ef"
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
    "another program's manifest": {"manifest.json": '{"name": "a web page"}', "index.html": "x"},
    "a manifest of nothing": {"manifest.json": "", "index.html": "x"},
    "a plain Zarr store": {"zarr.json": '{"zarr_format": 3, "node_type": "group"}'},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_with_other_files_is_refused_untouched(tmp_path: Path, kind: str, overwrite: bool) -> None:
    for name, content in FOREIGN[kind].items():
        (tmp_path / name).write_text(content)
    before = tree(tmp_path)
    with pytest.raises((UsageError, CacheDamagedError)) as caught:
        write(tmp_path, overwrite=overwrite)
    assert caught.value.hint
    assert tree(tmp_path) == before


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(UsageError, match=r"a\.zarr"):
        write(tmp_path / "a.zarr")


def test_a_newer_cache_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    (path / "manifest.json").write_text('{"format_version": 4, "promise": {}, "complete": true}')
    before = tree(path)
    with pytest.raises(MismatchError, match=r"4.* 3$"):
        write(path, overwrite=True)
    assert tree(path) == before


def test_a_folder_that_leads_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    (path / "q").rename(tmp_path / "elsewhere")
    (path / "q").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    for overwrite in (False, True):
        with pytest.raises(CacheDamagedError, match=r"a\.zarr/q\b"):
            write(path, overwrite=overwrite)
    assert tree(tmp_path / "elsewhere") == before


def test_a_link_in_the_place_of_the_writers_note_is_not_followed(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    (tmp_path / "precious").write_text("mine")
    (path / ".writer.json").symlink_to(tmp_path / "precious")
    write(path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_second_writer_is_told_which_process_writes_and_since_when(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    with open_writer(path, make_manifest()):
        time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
        named = rf"a\.zarr .*\b{os.getpid()}\b.* {re.escape(socket.gethostname())} .*{time}"
        with pytest.raises(BusyError, match=named) as caught, open_writer(path, make_manifest()):
            pass
    assert "--join" in caught.value.hint
    check = write(path)
    check_view(check, 0)


def test_a_holder_that_left_no_note_is_still_respected(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=r"a\.zarr"):
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
        with open_writer(path, make_manifest()):
            assert (path / ".writer.json").is_file()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert not (path / ".writer.json").exists()
