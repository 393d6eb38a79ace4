"""One writer at a time: a lock on the cache's directory that the system drops when its holder dies."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bancache.errors import BusyError
from bancache.files import storage_errors, write_json

HOLDER = ".writer.json"


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory for writing; who holds it is written inside for others to read.

    Raises:
        BusyError: Another process holds it; the message says which and since when.
    """
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{directory} is in use by {_holder(directory)}",
                hint="wait for it, or choose another --out",
            ) from error
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        # Renamed into place: others read the whole of it, and a link that lies there is replaced, not followed.
        write_json(directory / HOLDER, note)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (directory / HOLDER).unlink()
    finally:
        os.close(descriptor)


def _holder(directory: Path) -> str:
    try:
        note = json.loads((directory / HOLDER).read_text())
        return f"pid {note['pid']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
