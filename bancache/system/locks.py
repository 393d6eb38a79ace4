"""Write locks: released by the system when the holder dies, each with a note that names the holder.

One process holds a folder exclusively, or several processes share it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import functools
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bancache.errors import BusyError, DataError
from bancache.system.checked import Count, Text, checked
from bancache.system.files import files_below, read_json, storage_errors, write_json

# The note on a folder's holder lies inside the folder; the note on a file's writer lies beside the file.
HOLDER = ".writer.json"
# Processes that share a folder record their claims in this subfolder; the lock does not depend on it.
CLAIMS = ".claims"
# Notes of this process: one that a failed disk left behind is no other holder's.
_OWN: set[str] = set()

WAIT = "wait for it, or choose another --out"
_NOTE_LIMIT = 1 << 12
# Network file systems mounted without locks, and a lock for writing on a file that is open for reading.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
# A holder takes the lock first and writes its note afterwards, so a process that may share waits a moment.
_GRACE_SECONDS, _LOOK_EVERY_SECONDS = 2.0, 0.05


@contextlib.contextmanager
def exclusive(directory: Path, *, sharing: bool = False, hint: str = WAIT) -> Iterator[Callable[[], None]]:
    """Hold a folder for writing, with a note about this process in it; raise ``BusyError`` if another one holds it.

    Yields a function that turns the lock into a shared one, which processes in ``shared`` can hold too. With
    ``sharing``, such processes wait until it is called.
    """
    with _opened(directory) as descriptor:
        if not try_lock(descriptor, fcntl.LOCK_EX):
            raise _busy(directory, hint)
        # Where locks do not work, the note of a process that lives on this machine stands for one.
        holder = read_note(directory / HOLDER)
        if holder.get("token") not in _OWN and is_alive(holder):
            raise _busy(directory, hint)
        # Renamed into place: readers see the whole note, and a symbolic link is replaced, not followed.
        mine = note() | {"sharing": sharing, "shared": False, "token": uuid.uuid4().hex}
        _OWN.add(mine["token"])
        write_json(directory / HOLDER, mine)

        def share() -> None:
            # The system releases the old lock before it takes the new one; another process may take it in between.
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
    """Hold a folder for writing together with others; raise ``BusyError`` if a process holds it exclusively."""
    with _opened(directory) as descriptor:
        patience = time.monotonic() + _GRACE_SECONDS
        while not try_lock(descriptor, fcntl.LOCK_SH):
            if not read_note(directory / HOLDER).get("sharing") and time.monotonic() > patience:
                raise _busy(directory, WAIT)
            time.sleep(_LOOK_EVERY_SECONDS)
        yield


@contextlib.contextmanager
def in_turn(directory: Path) -> Iterator[None]:
    """Wait until no other process is in this block for a folder, and keep others out of it; no note is written."""
    with _opened(directory) as descriptor:
        wait_for_lock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def exclusive_file(path: Path) -> Iterator[None]:
    """Hold the right to create a file in an existing folder; raise ``BusyError`` if another process holds it."""
    lock = lock_path(path)
    while True:
        with storage_errors(path):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            if not try_lock(descriptor, fcntl.LOCK_EX):
                raise BusyError(f"{path} is in use by {describe_holder(read_note(lock))}", hint=WAIT)
            # The previous holder may have removed the lock file between our opening and our locking it.
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


def lock_path(path: Path) -> Path:
    """Return where the note on a file's writer lies, which is also its lock."""
    return path.with_name(f"{path.name}.lock")


class Reading:
    """A shared lock on a file that stays open, for as long as this object lives; without one where locks do not work."""

    def __init__(self, file: Path) -> None:
        """Open and lock a file; raise ``BusyError`` while another process replaces it, and an OSError if there is none."""
        self._file = file
        self._descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not try_lock(self._descriptor, fcntl.LOCK_SH):
            raise BusyError(f"{file.parent} is being overwritten", hint="wait until it is complete")

    def is_current(self) -> bool:
        """Return whether the file still has its name."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), self._file.stat())
        return False

    def __reduce__(self) -> tuple[type[Reading], tuple[Path]]:
        """Lock it again in another process."""
        return Reading, (self._file,)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._descriptor)


@contextlib.contextmanager
def unread(file: Path, *, hint: str) -> Iterator[None]:
    """Keep readers away from a file that is about to be replaced; raise ``BusyError`` while one of them has it open."""
    with storage_errors(file):
        # NFS locks only what is open for writing.
        mode = os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY
        descriptor = os.open(file, mode | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not try_lock(descriptor, fcntl.LOCK_EX):
            raise BusyError(f"{file.parent} is being read, by a training or another command", hint=hint)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, operation: int) -> bool:
    """Take or convert a lock without waiting; return whether it worked."""
    try:
        wait_for_lock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, operation: int) -> None:
    """Take, convert or release a lock; a file system without locks has none to wait for."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def note() -> dict[str, Any]:
    """Return the note about this process: for error messages, and to find out whether it is still alive."""
    since, pid = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), os.getpid()
    about = {"pid": pid, "host": socket.gethostname(), "since": since}
    return about | {"machine": _machine(), "born": _born(pid)}


class _Note(Struct):
    pid: Annotated[int, Meta(ge=1, lt=1 << 31)] | None = None
    born: Count = 0
    host: Text = ""
    since: Text = ""
    machine: Text = ""
    token: Text = ""


def as_note(found: object) -> dict[str, Any]:
    """Return a JSON value that anybody may have written as a note; an empty one if it is none."""
    with contextlib.suppress(DataError):
        checked(found, _Note, name="note", error=DataError)
        return found if isinstance(found, dict) else {}
    return {}


def read_note(file: Path) -> dict[str, Any]:
    """Return the note in a file; an empty one if it is missing or makes no sense."""
    with contextlib.suppress(DataError):
        return as_note(read_json(file, limit=_NOTE_LIMIT, error=DataError))
    return {}


def require_free(note: Path, subject: Path, *, hint: str = WAIT) -> None:
    """Raise ``BusyError`` if the process of a note is alive on this machine: a first look, without taking the lock."""
    holder = read_note(note)
    if holder.get("pid") != os.getpid() and is_alive(holder):
        raise BusyError(f"{subject} is in use by {describe_holder(holder)}", hint=hint)


def describe_holder(found: dict[str, Any]) -> str:
    """Return a note as text for a message."""
    try:
        return f"pid {found['pid']} on {found['host']} since {found['since']}"
    except KeyError:
        return "another process"


def is_gone(holder: dict[str, Any]) -> bool:
    """Return whether the process of a note ran on this machine and has ended; False if that is unknown."""
    return bool(holder.get("born")) and holder.get("machine") == _machine() and not _lives(holder)


def is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process of a note runs on this machine; False if that is unknown."""
    return holder.get("machine") == _machine() and _lives(holder)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _busy(directory: Path, hint: str) -> BusyError:
    found = [read_note(file) for file in (directory / HOLDER, *files_below(directory / CLAIMS))]
    holders = [holder for holder in found if holder and not is_gone(holder)]
    processes = {(holder.get("host"), holder.get("pid")) for holder in holders}
    more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
    return BusyError(f"{directory} is in use by {describe_holder(next(iter(holders), {}))}{more}", hint=hint)


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    """Return an id of this machine since its last boot, and of this container."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 (the link itself, not its target)
    except OSError:
        return ""


def _lives(holder: dict[str, Any]) -> bool:
    """Return whether the process of a note of this machine is alive."""
    return bool(holder.get("born")) and _born(holder.get("pid")) == holder["born"]


def _born(pid: Any) -> int:
    """Return the start time of a process in ticks; together with its pid it identifies the process."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if state in "ZX" else int(numbers[18])  # a zombie has ended
    except (OSError, ValueError, TypeError, IndexError):
        return 0
