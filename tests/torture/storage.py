"""Disks that lose power, are full, read-only or fail; system calls that fail by strace."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contracts.disks import LoopDisk, Mount
from contracts.killing import tree
from contracts.small_cache import SHARD_BYTES, SMALL_SHARD, write
from contracts.writing import PROMISE
from torture.rows import Ground, NotHere, Row
from torture.writers import shards, start, until_cut

from bancache.cache.opening import open_writer

_STORAGE = 6


def _continued(path: Path, acknowledged: set[int], expected: dict[str, bytes]) -> bool:
    """Whether no acknowledged shard is lost and the completed cache equals an undisturbed one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, SMALL_SHARD)
        with open_writer(path, PROMISE) as writer:
            lost = set() if writer is None else {r.index for r in writer.pending()} & acknowledged
        return not lost and tree(write(path, PROMISE)) == expected


def _expected(ground: Ground) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, SMALL_SHARD)
        return tree(write(ground.place("plain") / "a.zarr", PROMISE))


def power_cuts(ground: Ground) -> Iterator[bool]:
    """ext4 stops without flushing its journal, after a random number of shards."""
    chance, expected = random.Random(3), _expected(ground)
    for _ in ground.numbers(25):
        folder = ground.place("trial")
        try:
            disk = LoopDisk(folder)
        except OSError as refused:
            raise NotHere(f"no right to mount: {refused}") from refused
        try:
            path = disk.path / "a.zarr"
            yield _continued(path, until_cut(disk, path, after=chance.randrange(1, 23)), expected)
        finally:
            disk.close()


def _traced(ground: Ground, call: str, what: str, when: int) -> tuple[int, bool]:
    """Write while the n-th such call fails or kills; return the exit code, and whether the cache is right afterwards."""
    path = ground.place("trial") / "a.zarr"
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}")
    process = start(path, ["strace", "-f", "-o", "/dev/null", *inject])
    said, _ = process.communicate()
    # strace exits with the code of the traced process.
    return process.returncode, _continued(path, shards(said), _expected(ground))


def _strace(calls: tuple[str, ...], what: str, expected: int) -> Callable[[Ground], Iterator[bool]]:
    """Return a row's trials; a process that made fewer such calls is no trial."""

    def run(ground: Ground) -> Iterator[bool]:
        if shutil.which("strace") is None:
            raise NotHere("strace is not installed")
        for number in ground.numbers(40):
            call, when = calls[number % len(calls)], 1 + number // len(calls) * 3
            code, well = _traced(ground, call, what, when)
            if code or not well:
                yield code == expected and well

    return run


def full_disk(ground: Ground) -> Iterator[bool]:
    """A dump to a file system with a few free kilobytes; then space is made."""
    for number in ground.numbers(20):
        try:
            mount = Mount(ground.place("trial") / "mount", megabytes=4)
        except OSError as refused:
            raise NotHere(f"no right to mount: {refused}") from refused
        try:
            filler, out = mount.path / "filler", mount.path / "a.zarr"
            with filler.open("wb") as stream:
                stream.truncate(0)
                stream.write(bytes((4 << 20) - 4096 * (4 + 5 * number)))
            # --force, since a dump that cannot fit is refused before it writes.
            code, said = ground.forker.run([*ground.dump_args(out), "--force"])
            filler.unlink()
            again, _ = ground.forker.run(ground.dump_args(out))
            if code == 0 and ground.is_whole(out):  # it did fit
                continue
            stopped = code == _STORAGE and "error: no space left on device" in said
            yield stopped and again == 0 and ground.is_whole(out)
        finally:
            mount.close()


def read_only(ground: Ground) -> Iterator[bool]:
    """A dump to a read-only file system is refused at once; a student can be trained from a cache on it."""
    for _ in ground.numbers(5):
        try:
            mount = Mount(ground.place("trial") / "mount", megabytes=4)
        except OSError as refused:
            raise NotHere(f"no right to mount: {refused}") from refused
        try:
            shutil.copytree(ground.cache, mount.path / "a.zarr")
            mount.change("ro")
            code, said = ground.forker.run(ground.dump_args(mount.path / "b.zarr"))
            taught, _ = ground.forker.run(
                ground.train_args(ground.folder / "trial" / "s.pt", mount.path / "a.zarr")
            )
            yield code == _STORAGE and "read-only file system" in said and taught == 0
        finally:
            mount.close()


_FLUSH = ("fsync", "rename", "mkdir")
ROWS = (
    Row(
        2,
        "strace: SIGKILL at the n-th rename, fsync, mkdir, write",
        _strace((*_FLUSH, "write"), "signal=KILL", -signal.SIGKILL),
    ),
    Row(4, "power cut of an ext4 under a writer", power_cuts),
    Row(5, "full disk, from a few kilobytes on", full_disk),
    Row(6, "strace: ENOSPC at the n-th fsync, rename, mkdir", _strace(_FLUSH, "error=ENOSPC", _STORAGE)),
    Row(7, "strace: EIO at the n-th fsync, rename, mkdir", _strace(_FLUSH, "error=EIO", _STORAGE)),
    Row(16, "read-only file system", read_only),
)
