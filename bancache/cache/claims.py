"""Who is at which shard, for processes that fill a cache together: one file a shard, made by one of them.

A claim spares work and protects nothing: shards are written the same whoever does it, and a claim that is
taken from a living holder by mistake costs one shard's work twice. So it may be judged by simple means. Whose
process on this machine is gone has no claim any more; anybody else's holds while its file is touched now and
then. That is a new time of modification, seen by the observer's own monotonic clock: clocks of two hosts
are never compared, and one that jumps changes nothing. Who was killed after he made the file and before he wrote
his name into it cannot be asked for: a claim without a name holds for a moment only.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bancache.errors import BancacheError
from bancache.system.files import read_json, storage_errors
from bancache.system.locks import CLAIMS, is_gone, note

# Longer than the attributes of a file stay cached on a network file system, which is a minute.
LEASE_SECONDS = 120.0
# Much longer than it takes from making a file to writing a line into it.
_NAMELESS_SECONDS = 2.0
_TOUCHES_A_LEASE = 8
_NOTE_LIMIT = 1 << 12

_Seen = tuple[int, int]


class Claims:
    """The claims of one process on shards of one cache."""

    def __init__(
        self, cache: Path, *, lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Claim in the folder of ``cache`` that is made for it; without that folder nothing can be claimed.

        Args:
            cache: The store.
            lease: Seconds after which a claim that nobody touched is taken over.
            clock: Seconds from anywhere that only ever go on.
        """
        self._folder, self._lease, self._clock = cache / CLAIMS, lease, clock
        self._held: dict[int, int] = {}  # shard: inode of the claim
        self._watched: dict[int, tuple[_Seen, float]] = {}
        self._touched = clock()

    def take(self, index: int) -> bool:
        """Claim a shard, unless somebody who seems alive has it."""
        if index in self._held:
            return False
        with storage_errors(self._folder):
            return self._make(index) or (self._is_abandoned(index) and self._replace(index))

    def release(self, index: int) -> None:
        """Give a shard's claim up, if it is still this process's."""
        inode = self._held.pop(index, None)
        with storage_errors(self._folder), contextlib.suppress(FileNotFoundError):
            if inode == self._path(index).stat().st_ino:
                self._path(index).unlink()

    def release_all(self) -> None:
        """Give up what is held; a disk that refuses costs others a lease."""
        for index in list(self._held):
            with contextlib.suppress(BancacheError):
                self.release(index)

    def touch(self) -> None:
        """Show that this process is alive; called as often as one likes."""
        now = self._clock()
        if now - self._touched >= self._lease / _TOUCHES_A_LEASE:
            self._touched = now
            for index in list(self._held):  # the thread that writes may release one meanwhile
                with contextlib.suppress(FileNotFoundError), storage_errors(self._folder):
                    os.utime(self._path(index))

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.json"

    def _make(self, index: int) -> bool:
        try:
            descriptor = os.open(self._path(index), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):  # without its folder, the cache is complete
            return False
        try:
            os.write(descriptor, json.dumps(note()).encode())
            self._held[index] = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        self._watched.pop(index, None)
        return True

    def _is_abandoned(self, index: int) -> bool:
        try:
            about = self._path(index).stat()
        except FileNotFoundError:
            return True
        found = (about.st_ino, about.st_mtime_ns)
        before, since = self._watched.get(index, (None, 0.0))
        if before != found:
            before, since = self._watched[index] = (found, self._clock())
        holder = self._holder(index)
        lease = self._lease if holder else min(self._lease, _NAMELESS_SECONDS)
        return self._clock() - since >= lease or is_gone(holder)

    def _holder(self, index: int) -> dict[str, Any]:
        """Return a claim's note; empty where it was not yet written, never was, or was just released."""
        with contextlib.suppress(BancacheError):
            found = read_json(self._path(index), limit=_NOTE_LIMIT, error=BancacheError)
            if isinstance(found, dict):
                return found
        return {}

    def _replace(self, index: int) -> bool:
        # Of two that do this at once, one may remove what the other has just made: both then do the shard.
        self._path(index).unlink(missing_ok=True)
        return self._make(index)
