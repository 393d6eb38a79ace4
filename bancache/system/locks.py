"""Who may write: locks that the system drops when their holder dies, with a note of who holds them.

A folder is held by one process, or by any number of them that have agreed to share it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bancache.errors import BusyError
from bancache.system.files import storage_errors, write_json

# Who holds a folder is written inside it; who writes a file, into a file beside it.
HOLDER = ".writer.json"
LOCK_SUFFIX = ".lock"
# Processes that share a folder say in here what each is at; for the lock itself it means nothing.
CLAIMS = ".claims"

WAIT = "wait for it, or choose another --out"
# Between taking a lock and saying so, a holder is nameless; somebody who may be let in looks again.
_GRACE_SECONDS, _LOOK_EVERY_SECONDS = 2.0, 0.05


@contextlib.contextmanager
def exclusive(directory: Path, *, sharing: bool = False, hint: str = WAIT) -> Iterator[Callable[[], None]]:
    """Hold a folder for writing; who holds it is written inside for others to read.

    Args:
        directory: The folder.
        sharing: Whether the folder will be shared soon; who wants to join then waits instead of giving up.
        hint: What somebody can do who finds it held.

    Yields:
        A function that turns the lock into one that processes in ``shared`` may hold too.

    Raises:
        BusyError: Another process holds it; the message says which and since when.
    """
    with _opened(directory) as descriptor:
        if not try_lock(descriptor, fcntl.LOCK_EX):
            raise _busy(directory, hint)
        # Renamed into place: others read the whole of it, and a link that lies there is replaced, not followed.
        mine = note() | {"sharing": sharing, "shared": False}
        write_json(directory / HOLDER, mine)

        def share() -> None:
            # The system gives the old lock up before it takes the new one: somebody may come in between.
            if not try_lock(descriptor, fcntl.LOCK_SH):
                raise _busy(directory, hint)
            write_json(directory / HOLDER, mine | {"shared": True})

        try:
            yield share
        finally:
            with contextlib.suppress(OSError):
                (directory / HOLDER).unlink()


@contextlib.contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Hold a folder for writing together with others who do; nobody holds it alone meanwhile.

    Raises:
        BusyError: A process holds it for itself; the message says which and since when.
    """
    with _opened(directory) as descriptor:
        patience = time.monotonic() + _GRACE_SECONDS
        while not try_lock(descriptor, fcntl.LOCK_SH):
            if not _read(directory / HOLDER).get("sharing") and time.monotonic() > patience:
                raise _busy(directory, WAIT)
            time.sleep(_LOOK_EVERY_SECONDS)
        yield


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
            if not try_lock(descriptor, fcntl.LOCK_EX):
                raise BusyError(f"{path} is in use by {said(_read(lock))}", hint=WAIT)
            # Its holder before us may have removed it between our opening and our taking it.
            if not (lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat())):
                continue
            with storage_errors(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(note()).encode(), 0)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()
            return
        finally:
            os.close(descriptor)


def try_lock(descriptor: int, operation: int) -> bool:
    """Take a lock, or turn one into another, unless somebody else's is in the way."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note() -> dict[str, Any]:
    """Return what this process writes down about itself: for people, and for who asks whether it still lives."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    about = {"pid": pid, "host": socket.gethostname(), "since": now}
    return about | {"machine": _machine(), "born": _born(pid)}


def holder(directory: Path) -> dict[str, Any]:
    """Return the note of who holds a folder, or held it last and was killed; empty where there is none."""
    return _read(directory / HOLDER)


def said(found: dict[str, Any]) -> str:
    """Return what a note says of who wrote it."""
    try:
        return f"pid {found['pid']} on {found['host']} since {found['since']}"
    except KeyError:
        return "another process"


def is_gone(holder: dict[str, Any]) -> bool:
    """Return whether who wrote a note was a process of this machine and is no more; false if nobody can tell."""
    born = holder.get("born")
    return bool(born) and holder.get("machine") == _machine() and _born(holder.get("pid")) != born


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _busy(directory: Path, hint: str) -> BusyError:
    found = [_read(file) for file in (directory / HOLDER, *directory.glob(f"{CLAIMS}/*.json"))]
    holders = [holder for holder in found if holder and not is_gone(holder)]
    processes = {(holder.get("host"), holder.get("pid")) for holder in holders}
    more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
    return BusyError(f"{directory} is in use by {said(next(iter(holders), {}))}{more}", hint=hint)


def _read(file: Path) -> dict[str, Any]:
    """Return a note, or nothing where there is none that can be read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    """Return what tells this machine since it was started, and this container, from any other."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 (not the process it leads to)
    except OSError:
        return ""


def _born(pid: Any) -> int:
    """Return when a process of this machine began, in ticks: with its number, that is one process for ever."""
    try:
        state, *numbers = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
        return 0 if state in "ZX" else int(numbers[18])  # one that waits to be buried lives no more
    except (OSError, ValueError, TypeError, IndexError):
        return 0
