"""Files that are either whole and on disk, or not there at all.

Every file that replaces another is written beside it, flushed to disk, renamed over it, and the rename
itself is flushed. A process killed anywhere in between, or a power cut, leaves the old file or the new.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bancache.errors import BancacheError, StorageError, UsageError

# What a full, read-only or failing disk says, and what a path says that cannot be meant; anything else is a bug.
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM}
)
_USAGE_ERRNOS = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}
)

TEMPORARY_SUFFIX = ".partial"


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write to ``path`` into an error that names it.

    Raises:
        StorageError: The disk is full, read-only or failing.
        UsageError: Nothing can be written under that name: a folder, below a file, too long.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        if error.errno in _USAGE_ERRNOS:
            raise UsageError(f"{reason}: {path}", hint="choose another --out") from error
        if error.errno in _STORAGE_ERRNOS:
            raise StorageError(
                f"{reason}: {path}",
                hint="make room or choose another place, then run the same command again; what was done is kept",
            ) from error
        raise


def write_atomically(path: Path, content: bytes) -> os.stat_result:
    """Make ``path`` hold ``content``, durably: flushed, renamed into place, directory flushed.

    Returns what the system knows of the file, which tells it from any that is put in its place later.

    Raises:
        StorageError: The disk is full, read-only or failing; the old file is untouched.
    """
    return replace_atomically(path, lambda stream: stream.write(content))


def replace_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> os.stat_result:
    """Let ``write`` fill a file beside ``path``, then put it in its place, durably; return its status.

    Raises:
        StorageError: The disk is full, read-only or failing; the old file is untouched.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    with storage_errors(path):
        try:
            with temporary.open("xb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
                status = os.fstat(stream.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
            return status
        except BaseException:
            # Nobody will ever look at it; without this a full disk would stay full.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Append one line, durably, healing a last line that an earlier power cut left without its end."""
    with storage_errors(path), path.open("a+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory: without it, a rename may not survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory and its parents, durably; one that exists is left alone."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder", hint="choose another --out")
    with storage_errors(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for created in missing:
            sync_directory(created.parent)


def remove_temporaries(directory: Path, of: str = "**/*") -> None:
    """Delete what killed processes left behind of the files that match ``of`` in ``directory``."""
    for leftover in directory.glob(f"{of}{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def read_json(path: Path, *, limit: int, error: type[BancacheError], hint: str = "") -> Any:
    """Read a JSON file of at most ``limit`` bytes; whatever is wrong with it raises ``error``."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise error(f"{path} is {size:,} bytes; at most {limit:,} make sense", hint=hint)
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise error(f"{path} is missing", hint=hint) from missing
    except OSError as refused:
        raise error(
            f"{path} cannot be read: {(refused.strerror or str(refused)).lower()}", hint=hint
        ) from refused
    except (ValueError, RecursionError) as broken:
        raise error(f"{path} is not valid JSON: {broken}", hint=hint) from broken


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably, with keys in order, so that equal values give equal bytes."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return JSON as ``write_json`` writes it."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
