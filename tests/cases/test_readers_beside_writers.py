"""What a training has opened stays as it was opened, or the writer refuses; nothing that is right on disk is called damaged."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from contracts.calling import call, succeed
from contracts.killing import tree
from contracts.small_cache import Q, check_view, expected_view, make_manifest, write, write_some
from sources.tiny import Heard

from bancache.cache import Layout
from bancache.cache.info import describe
from bancache.cache.manifest_io import read_manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import verify_cache
from bancache.errors import BusyError, CacheDamagedError, MismatchError
from bancache.sources.spec import DataSpec
from bancache.study.experiment import Experiment
from bancache.study.sequence_folder import claim
from bancache.system import configs, files, locks
from bancache.system.progress import Silent, Stage
from bancache.training import Recipe

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"
OTHER = make_manifest(teacher={"fingerprint": "a" * 64}, fields=(Q,))


def test_a_cache_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    before = tree(path)
    reader = open_cache(path)
    with pytest.raises(BusyError, match=r"a\.zarr .*read") as caught:
        write(path, OTHER, overwrite=True)
    assert "--out" in caught.value.hint
    assert tree(path) == before
    assert (reader.read_view(2)["q"] == expected_view(make_manifest(), 2)["q"]).all()
    del reader
    write(path, OTHER, overwrite=True)
    assert open_cache(path).manifest == OTHER


def test_a_manifest_that_is_written_while_it_is_looked_for_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.zarr")
    manifest, away, look = path / "manifest.json", tmp_path / "away", Path.is_file
    manifest.rename(away)

    def answer(place: Path) -> bool:
        found = look(place)
        if place == manifest and not found:
            away.rename(manifest)
        return found

    monkeypatch.setattr(Path, "is_file", answer)
    with pytest.raises(CacheDamagedError, match="is missing"):
        read_manifest(path)


def test_the_same_dump_of_a_cache_that_is_read_still_finds_it_complete(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    reader = open_cache(path)
    with open_writer(path, make_manifest()) as writer:
        assert writer is None
    assert reader.read_view(0)


def test_a_cache_is_repaired_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    reader = open_cache(path)
    (path / "zarr.json").unlink()
    with open_repairer(path) as repairer:
        repairer.restore_descriptions()
    assert (reader.read_view(1)["q"] == expected_view(make_manifest(), 1)["q"]).all()


@pytest.mark.parametrize("how", ["removed", "replaced by another cache", "replaced by itself"])
@pytest.mark.parametrize("profile", ["default", "compact", "mmap"])
def test_a_cache_that_went_away_is_not_called_damaged(tmp_path: Path, profile: str, how: str) -> None:
    manifest = make_manifest(profile=profile)
    path, other = write(tmp_path / "a.zarr", manifest), write(tmp_path / "b.zarr", OTHER)
    reader = open_cache(path)
    if how == "replaced by itself":
        shutil.copytree(path, tmp_path / "copy.zarr")
        shutil.rmtree(path)
        (tmp_path / "copy.zarr").rename(path)
        assert (reader.read_view(1)["q"] == expected_view(manifest, 1)["q"]).all()
        return
    shutil.rmtree(path)
    if how == "replaced by another cache":
        other.rename(path)
    with pytest.raises(MismatchError, match=r"a\.zarr was removed or replaced"):
        reader.read_view(0)
    with pytest.raises(MismatchError, match=r"a\.zarr was removed or replaced"):
        reader.shard(Layout(manifest).shard(0))


@pytest.mark.parametrize("deep", [False, True])
def test_a_cache_that_is_replaced_while_it_is_verified_is_not_called_damaged(
    tmp_path: Path, deep: bool
) -> None:
    path, other = write(tmp_path / "a.zarr"), write(tmp_path / "b.zarr", OTHER)

    class Replacing(Silent):
        def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
            if title == ("decode" if deep else "verify"):
                path.rename(tmp_path / "old.zarr")
                other.rename(path)
            return super().stage(title, total=total, unit=unit, done=done)

    with pytest.raises(MismatchError):
        verify_cache(path, inspect=(lambda encoded: None) if deep else None, progress=Replacing())
    assert verify_cache(path) == []


def test_a_repair_writes_nothing_into_a_cache_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.zarr"), write(tmp_path / "b.zarr", OTHER)
    before, shard = tree(other), Layout(make_manifest()).shard(0)
    right = open_cache(path).shard(shard)
    with open_repairer(path) as repairer:
        path.rename(tmp_path / "old.zarr")
        other.rename(path)
        with pytest.raises(MismatchError):
            repairer.rewrite(shard, right)
    assert tree(path) == before


def test_a_reader_is_moved_to_another_process_with_its_lock(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    reader = pickle.loads(pickle.dumps(open_cache(path)))
    with pytest.raises(BusyError):
        write(path, OTHER, overwrite=True)
    assert reader.read_view(0)


def test_a_cache_on_a_file_system_without_locks_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = write(tmp_path / "a.zarr")
    check_view(path, 2)
    check_view(write(path, overwrite=True), 2)


def test_of_two_plain_dumps_without_locks_the_second_one_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note on the holder says that it lives; its claims stay."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    path = tmp_path / "a.zarr"
    with open_writer(path, make_manifest()) as writer:
        assert writer is not None
        assert writer.claims.take(0)
        monkeypatch.setattr(locks, "_OWN", frozenset())  # as another process sees it
        with pytest.raises(BusyError, match=str(os.getpid())), open_writer(path, make_manifest()):
            pass
        assert (path / ".claims" / "000000.json").is_file()


def test_describing_a_cache_beside_its_dump_always_answers(tmp_path: Path) -> None:
    """Records, claims and half-written files come and go meanwhile."""
    path, done = write_some(tmp_path / "a.zarr", []), threading.Event()

    def work() -> None:
        for _ in range(8):
            write(path, overwrite=True)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        assert describe(path)["samples"] == 40
    thread.join()


def test_a_folder_that_vanishes_while_it_is_listed_has_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    scan = os.scandir

    def vanishing(folder: str | int) -> object:
        if str(folder).endswith((".claims", ".regions")) and Path(str(folder)).is_dir():
            Path(str(folder)).rename(tmp_path / Path(str(folder)).name)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert describe(path)["shards_done"] == 0
    assert files.bytes_below(tmp_path / "none") == 0


STRAY = (".DS_Store", "q/Thumbs.db", "._zarr.json", "q/.nfs0000001", "lost+found/x", "notes.txt", "a.partial")


def test_files_that_nobody_listed_are_noted_and_left_alone(tmp_path: Path) -> None:
    cache, told = write(tmp_path / "a.zarr"), Heard()
    for name in STRAY:
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text("?")
    (cache / "link").symlink_to(tmp_path)
    assert verify_cache(cache, progress=told) == []
    (note,) = told.notes
    assert all(name in note for name in (*STRAY, "link"))
    with open_repairer(cache) as repairer:
        repairer.restore_descriptions()
    assert all((cache / name).read_text() == "?" for name in STRAY)


def test_verify_says_intact_beside_a_stray_file(tmp_path: Path) -> None:
    cache = shutil.copytree(OLD / "gen0.zarr", tmp_path / "gen0.zarr")
    (cache / ".DS_Store").write_text("?")
    told = succeed("verify", cache)
    assert told["intact"]
    assert ".DS_Store" in told["notes"][0]
    assert call("verify", cache).code == 0


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._a", ".nfs0001"])
def test_a_folder_with_a_stray_file_of_the_system_may_become_a_cache(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / name).write_text("?")
    check_view(write(tmp_path / "a.zarr"), 0)
    assert (tmp_path / "a.zarr" / name).read_text() == "?"


def test_a_file_that_nfs_keeps_does_not_stop_a_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed while it is open, it has another name until it is closed, and cannot be removed again."""
    unlink = os.unlink

    def kept(name: str, *, dir_fd: int | None = None) -> None:
        if Path(name).name == "lock":
            os.rename(name, Path(name).with_name(".nfs01"), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        elif Path(name).name == ".nfs01":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        else:
            unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", kept)
    check_view(write(tmp_path / "a.zarr"), 1)


def test_temporary_files_of_a_name_are_not_those_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "a.01234567.partial").touch()
    (tmp_path / "a.pt.01234567.partial").touch()
    files.remove_temporaries(tmp_path, "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt.01234567.partial"]


def test_studies_that_begin_together_keep_every_seed(tmp_path: Path) -> None:
    """Each thread opens the folder for itself, so their locks exclude each other as those of processes do."""
    stored = configs.read_toml(OLD / "run" / "run.toml")
    recipe = Recipe(**{**stored["recipe"], "milestones": ()})
    ready = threading.Barrier(8)

    def begin(seed: int) -> None:
        ready.wait()
        data = DataSpec("digits", 48)
        claim(Experiment(data, stored["model"], recipe, "crop1", 1, "root4", 256, 1, (seed,)), tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    assert configs.read_toml(tmp_path / "run.toml")["sequence"]["seeds"] == list(range(8))


def test_an_incomplete_cache_is_incomplete_beside_its_dump(tmp_path: Path) -> None:
    with pytest.raises(CacheDamagedError, match="incomplete"):
        open_cache(write_some(tmp_path / "a.zarr", [0]))
