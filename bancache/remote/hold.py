"""Who may write to an address: one process, which shows there that it is alive.

An object store has no locks that fall with their holder. So the holder's note is created where there is none, and replaced
every few seconds; a note that stayed the same for a lease is that of the dead. Time is the store's own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from bancache.errors import BancacheError, BusyError, StorageError
from bancache.remote.bucket import IMPATIENT, Bucket, Entry
from bancache.system.locks import HOLDER, describe_holder, is_gone, note

# Who could not be told of for half of it begins nothing more, and what he began ends within the other half.
LEASE_SECONDS = 120.0
_SHOWS_A_LEASE = 8
_NOTE_LIMIT = 1 << 12
# Tokens of the holds of this process: a store that failed may still have the note of one that is over.
_LIVE: set[str] = set()


class Hold:
    """An address that this process holds."""

    def __init__(self, bucket: Bucket, tag: str, about: dict[str, Any], lease: float) -> None:
        self._bucket, self._tag, self._about, self._lease = bucket, tag, about, lease
        self._hasty = Bucket(bucket.address, IMPATIENT)
        self._shown, self._lost, self._shows = time.monotonic(), False, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="bancache-hold", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Refuse to write on where somebody else may have come to hold the address.

        Raises:
            BusyError: Somebody has.
            StorageError: The store could not be told for half a lease that this process is alive.
        """
        if self._lost:
            raise BusyError(
                f"{self._bucket.address} was taken over by another process",
                hint="wait for it, then run this again",
            )
        if time.monotonic() - self._shown >= self._lease / 2:
            raise StorageError(
                f"{self._bucket.address} could not be told that this process is alive",
                hint="run the same command again; what was done is kept",
            )

    def show(self) -> None:
        """Tell the store that this process is alive.

        Raises:
            StorageError: The store fails.
        """
        began, self._shows = time.monotonic(), self._shows + 1
        tag = self._hasty.replace(HOLDER, _content(self._about | {"shown": self._shows}), self._tag)
        if tag is None:
            self._lost = True
        else:
            self._tag, self._shown = tag, began

    def release(self) -> None:
        """Let others in, at once if the store can be told, after a lease if not."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(BancacheError):
            there = self._hasty.look(HOLDER)
            if there is not None and there.tag == self._tag:
                self._hasty.delete([HOLDER])

    def _beat(self) -> None:
        while not self._lost and not self._done.wait(self._lease / _SHOWS_A_LEASE):
            # The next beat tries again; ``require`` knows for how long.
            with contextlib.suppress(BancacheError):
                self.show()


@contextlib.contextmanager
def held(bucket: Bucket, *, lease: float = LEASE_SECONDS) -> Iterator[Hold]:
    """Hold an address for writing.

    Raises:
        BusyError: Another process holds it; the message says which and since when.
        StorageError: The store fails.
    """
    about = note() | {"token": uuid.uuid4().hex}
    _LIVE.add(about["token"])
    try:
        hold = Hold(bucket, _take(bucket, about, lease), about, lease)
        try:
            yield hold
        finally:
            hold.release()
    finally:
        _LIVE.discard(about["token"])


def _take(bucket: Bucket, about: dict[str, Any], lease: float) -> str:
    """Put a note where there is none, or where that of a dead process is, and return its tag."""
    content = _content(about)
    tag = bucket.create(HOLDER, content)
    if tag is not None:
        return tag
    there, found = bucket.look(HOLDER), _parse(bucket.get(HOLDER, _NOTE_LIMIT))
    if there is not None and (_is_over(found, about) or _age(bucket, there, about["token"]) >= lease):
        tag = bucket.replace(HOLDER, content, there.tag)
    elif there is None:
        tag = bucket.create(HOLDER, content)
    if tag is None:
        raise BusyError(
            f"{bucket.address} is in use by {describe_holder(found)}",
            hint=f"wait for it; if it died on another machine, for {lease:g} s, or choose another address",
        )
    return tag


def _is_over(found: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether a note is that of a dead process of this machine, or of a hold that this one could not give back."""
    mine = all(found.get(key) == about[key] for key in ("machine", "pid", "born"))
    return is_gone(found) or (mine and found.get("token") not in _LIVE)


def _age(bucket: Bucket, there: Entry, token: str) -> float:
    """Return for how many seconds an object has stayed the same, by the store's clock alone."""
    probe = f"{HOLDER}.{token}"
    bucket.put(probe, b"")
    now = bucket.look(probe)
    bucket.delete([probe])
    return 0.0 if now is None else (now.modified - there.modified).total_seconds()


def _content(about: dict[str, Any]) -> bytes:
    return json.dumps(about, sort_keys=True).encode()


def _parse(content: bytes | None) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content or b"")
        if isinstance(found, dict):
            return found
    return {}
