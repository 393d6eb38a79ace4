"""Claims: which shard each process is working on, when several processes fill one cache. One file a shard.

A claim saves work and protects nothing: taken from a living process by mistake, one shard is computed twice, to the same
bytes. A claim ends when its process ran on this machine and is gone, or when its file was not touched for a lease, by the
observer's own monotonic clock: clocks of two hosts are never compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from bancache.errors import BancacheError
from bancache.system.files import storage_errors
from bancache.system.locks import CLAIMS, is_gone, note, read_note

# A network file system may cache a file's attributes for a minute.
LEASE_SECONDS = 120.0
# Of a claim without a name: its process was killed between making the file and writing its name.
_NAMELESS_SECONDS = 2.0
_TOUCHES_A_LEASE = 8


class Claims:
    """The claims of one process on shards of one cache."""

    def __init__(
        self, cache: Path, *, lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Use the folder of claims of ``cache``; a claim that is not touched for ``lease`` seconds is taken over."""
        self._folder, self._lease, self._clock = cache / CLAIMS, lease, clock
        self._held: dict[int, int] = {}  # shard: inode of the claim
        # Claims of others, by shard: inode and time of modification, and when they were first seen so.
        self._watched: dict[int, tuple[tuple[int, int], float]] = {}
        self._touched = clock()

    def take(self, index: int) -> bool:
        """Claim a shard, unless this process or one that seems alive has it."""
        if index in self._held:
            return False
        with storage_errors(self._folder):
            if self._make(index):
                return True
            if not self._is_abandoned(index):
                return False
            # Of two that do this at once, one may remove the other's new claim: both then compute the shard.
            self._path(index).unlink(missing_ok=True)
            return self._make(index)

    def release(self, index: int) -> None:
        """Give up the claim on a shard, if it is still this process's."""
        inode = self._held.pop(index, None)
        with storage_errors(self._folder), contextlib.suppress(FileNotFoundError):
            if inode == self._path(index).stat().st_ino:
                self._path(index).unlink()

    def release_all(self) -> None:
        """Give up all claims; where the disk refuses, others wait for a lease."""
        for index in list(self._held):
            with contextlib.suppress(BancacheError):
                self.release(index)

    def touch(self) -> None:
        """Show that this process is alive; most calls do nothing."""
        now = self._clock()
        if now - self._touched >= self._lease / _TOUCHES_A_LEASE:
            self._touched = now
            for index in list(self._held):  # the writer's thread may release one meanwhile
                with storage_errors(self._folder), contextlib.suppress(FileNotFoundError):
                    os.utime(self._path(index))

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.json"

    def _make(self, index: int) -> bool:
        try:
            with self._path(index).open("x") as stream:
                stream.write(json.dumps(note()))
                inode = os.fstat(stream.fileno()).st_ino
        except (FileExistsError, FileNotFoundError):  # without its folder, the cache is complete
            return False
        self._held[index] = inode
        self._watched.pop(index, None)
        return True

    def _is_abandoned(self, index: int) -> bool:
        try:
            status = self._path(index).stat()
        except FileNotFoundError:
            return True
        found = (status.st_ino, status.st_mtime_ns)
        before, since = self._watched.get(index, (None, 0.0))
        if before != found:
            before, since = self._watched[index] = (found, self._clock())
        holder = read_note(self._path(index))
        lease = self._lease if holder else min(self._lease, _NAMELESS_SECONDS)
        return self._clock() - since >= lease or is_gone(holder)
