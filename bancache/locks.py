"""One writer at a time: locks that the system drops when their holder dies, with a note of who holds them."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bancache.errors import BusyError
from bancache.files import storage_errors, write_json

# Who holds a folder is written inside it; who writes a file, into a file beside it.
HOLDER = ".writer.json"
LOCK_SUFFIX = ".lock"


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a folder for writing; who holds it is written inside for others to read.

    Raises:
        BusyError: Another process holds it; the message says which and since when.
    """
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        _take(descriptor, directory, directory / HOLDER)
        # Renamed into place: others read the whole of it, and a link that lies there is replaced, not followed.
        write_json(directory / HOLDER, _note())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (directory / HOLDER).unlink()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive_file(path: Path) -> Iterator[None]:
    """Be the only one who makes the file ``path``; its folder must be there, the file need not.

    Raises:
        BusyError: Another process is making it; the message says which and since when.
    """
    lock = path.with_name(path.name + LOCK_SUFFIX)
    while True:
        with storage_errors(path):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            _take(descriptor, path, lock)
            # Its holder before us may have removed it between our opening and our taking it.
            if not (lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat())):
                continue
            with storage_errors(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_note()).encode(), 0)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()
            return
        finally:
            os.close(descriptor)


def _take(descriptor: int, what: Path, note: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            f"{what} is in use by {_holder(note)}", hint="wait for it, or choose another --out"
        ) from error


def _note() -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
