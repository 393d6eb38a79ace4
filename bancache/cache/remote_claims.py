"""Claims on the shards of a cache in an object store, as ``claims`` makes them in a directory: one object a shard.

A claim is created where there is none, and replaced or removed only while it is the one that was looked at. It ends when
its process ran on this machine and is gone, or when it stays unchanged for a lease, by the observer's own monotonic clock.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from threading import Lock
from typing import Any

from bancache.cache.claims import LEASE_SECONDS
from bancache.errors import BancacheError
from bancache.system.bucket import IMPATIENT, Bucket
from bancache.system.checked import json_object
from bancache.system.files import json_bytes
from bancache.system.locks import CLAIMS, as_note, is_gone, note

NOTE_LIMIT = 1 << 12
_TOUCHES_A_LEASE = 8


class RemoteClaims:
    """The claims of one process on shards of one cache."""

    def __init__(self, bucket: Bucket, is_recorded: Callable[[int], bool]) -> None:
        """Claim shards at an address; ``is_recorded`` asks the store whether a shard is done."""
        self._bucket, self._is_recorded = bucket, is_recorded
        self._hasty = Bucket(bucket.address, IMPATIENT)
        self._about = note() | {"token": uuid.uuid4().hex}
        self._held: dict[int, str] = {}  # shard: tag of the claim
        # Claims of others, by shard: their tags, when they were first seen so, and the notes in them.
        self._watched: dict[int, tuple[str, float, dict[str, Any]]] = {}
        self._changing, self._touched, self._shown = Lock(), time.monotonic(), 0

    def take(self, index: int) -> bool:
        """Claim a shard, unless it is recorded, or this process or one that seems alive has it."""
        if index in self._held:
            return False
        content = json_bytes(self._about)
        tag = self._bucket.create(_key(index), content)
        if tag is None and (old := self._abandoned(index)):
            tag = self._bucket.replace(_key(index), content, old)
        if tag is None:
            return False
        self._held[index] = tag
        # Another process may have recorded it and removed its claim since the caller looked.
        if self._is_recorded(index):
            self.release(index)
            return False
        return True

    def release(self, index: int) -> None:
        """Give up the claim on a shard, if it is still this process's."""
        with self._changing:
            tag = self._held.pop(index, None)
            there = self._bucket.head(_key(index)) if tag else None
            if there is not None and there.tag == tag:
                self._bucket.delete([_key(index)])

    def release_all(self) -> None:
        """Give up all claims; where the store refuses, others wait for a lease."""
        for index in list(self._held):
            with contextlib.suppress(BancacheError):
                self.release(index)

    def touch(self) -> None:
        """Show that this process is alive; most calls do nothing."""
        now = time.monotonic()
        if now - self._touched < LEASE_SECONDS / _TOUCHES_A_LEASE:
            return
        self._touched, self._shown = now, self._shown + 1
        content = json_bytes(self._about | {"shown": self._shown})
        for index in list(self._held):  # the writer's threads may release some meanwhile
            # After a failure the next round tries again; a claim that was taken over protects nothing.
            with self._changing, contextlib.suppress(BancacheError):
                if (tag := self._held.get(index)) is not None:
                    self._held[index] = self._hasty.replace(_key(index), content, tag) or tag

    def _abandoned(self, index: int) -> str | None:
        """Return the tag of a claim whose process seems dead, or None."""
        there = self._bucket.head(_key(index))
        if there is None:
            return None  # it was just removed: the caller comes again
        watched = self._watched.get(index)
        if watched is None or watched[0] != there.tag:
            holder = as_note(json_object(self._bucket.get(_key(index), NOTE_LIMIT)))
            watched = self._watched[index] = there.tag, time.monotonic(), holder
            return there.tag if is_gone(holder) else None
        _, since, holder = watched
        return there.tag if time.monotonic() - since >= LEASE_SECONDS or is_gone(holder) else None


def _key(index: int) -> str:
    return f"{CLAIMS}/{index:06d}.json"
