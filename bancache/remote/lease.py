"""A lease on an address: one process may write there, as long as it shows that it is alive.

An object store has no locks that end with their process. So the process creates a note where there is none and replaces it
every few seconds. A note that stays unchanged for a lease counts as a dead process's. Time is the store's own clock.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from bancache.errors import BancacheError, BusyError, StorageError
from bancache.system.bucket import IMPATIENT, Bucket, seconds_unchanged
from bancache.system.checked import json_object
from bancache.system.files import json_bytes
from bancache.system.locks import HOLDER, as_note, describe_holder, is_gone, note

# A process that could not renew for half of it begins no request, and requests end within the other half.
LEASE_SECONDS = 120.0
_RENEWALS_A_LEASE = 8
_NOTE_LIMIT = 1 << 12
# Tokens of this process's leases. A note with another token of this process is left over: the store failed at its release.
_LIVE: set[str] = set()


class Lease:
    """This process's lease on an address, renewed by a thread."""

    def __init__(self, bucket: Bucket, tag: str, about: dict[str, Any], seconds: float) -> None:
        self._bucket, self._tag, self._about, self._seconds = bucket, tag, about, seconds
        self._hasty = Bucket(bucket.address, IMPATIENT)
        self._renewed, self._lost, self._renewals = time.monotonic(), False, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="bancache-lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Require that no other process can have taken the address over."""
        if self._lost:
            raise BusyError(
                f"{self._bucket.address} was taken over by another process",
                hint="wait for it, then run this again",
            )
        if time.monotonic() - self._renewed >= self._seconds / 2:
            raise StorageError(
                f"{self._bucket.address}: the lease could not be renewed",
                hint="run the same command again; what was done is kept",
            )

    def renew(self) -> None:
        """Replace the note, to show that this process is alive."""
        began, self._renewals = time.monotonic(), self._renewals + 1
        tag = self._hasty.replace(HOLDER, json_bytes(self._about | {"shown": self._renewals}), self._tag)
        if tag is None:
            self._lost = True
        else:
            self._tag, self._renewed = tag, began

    def release(self) -> None:
        """Remove the note; if the store fails, others wait until the lease ends."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(BancacheError):
            there = self._hasty.head(HOLDER)
            if there is not None and there.tag == self._tag:
                self._hasty.delete([HOLDER])

    def _keep(self) -> None:
        while not self._lost and not self._done.wait(self._seconds / _RENEWALS_A_LEASE):
            # After a failure the next round tries again; ``require`` knows for how long.
            with contextlib.suppress(BancacheError):
                self.renew()


@contextlib.contextmanager
def leased(bucket: Bucket, *, seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Hold the lease on an address."""
    about = note() | {"token": uuid.uuid4().hex}
    _LIVE.add(about["token"])
    try:
        lease = Lease(bucket, _take(bucket, about, seconds), about, seconds)
        try:
            yield lease
        finally:
            lease.release()
    finally:
        _LIVE.discard(about["token"])


def _take(bucket: Bucket, about: dict[str, Any], seconds: float) -> str:
    """Put a note where there is none or a dead process's, and return its tag."""
    content = json_bytes(about)
    tag = bucket.create(HOLDER, content)
    if tag is not None:
        return tag
    there, found = bucket.head(HOLDER), as_note(json_object(bucket.get(HOLDER, _NOTE_LIMIT)))
    if there is not None and (
        _is_over(found, about) or seconds_unchanged(bucket, there, about["token"]) >= seconds
    ):
        tag = bucket.replace(HOLDER, content, there.tag)
    elif there is None:
        tag = bucket.create(HOLDER, content)
    if tag is None:
        raise BusyError(
            f"{bucket.address} is in use by {describe_holder(found)}",
            hint=f"wait for it; if it died on another machine, for {seconds:g} s, or choose another address",
        )
    return tag


def _is_over(found: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether a note is from a dead process of this machine, or from a lease that this process could not release."""
    mine = all(found.get(key) == about[key] for key in ("machine", "pid", "born"))
    return is_gone(found) or (mine and found.get("token") not in _LIVE)
