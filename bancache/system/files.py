"""Durable writes: a file is either complete on disk or absent.

A new file is written beside the old one, flushed, and renamed over it; then the directory is flushed. A kill
or a power cut at any point leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bancache.errors import BancacheError, StorageError, UsageError
from bancache.system.address import Address
from bancache.system.checked import parse_json

# Error numbers of a full, read-only or failing disk, and of a path that cannot be written. Any other is a bug.
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM}
)
_USAGE_ERRNOS = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}
)

TEMPORARY_SUFFIX = ".partial"
_TEMPORARY = re.compile(r"(?P<of>.+)\.[0-9a-f]{8}\.partial", re.DOTALL)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` while writing ``path`` into an error that names it.

    Raises:
        StorageError: The disk is full, read-only or failing.
        UsageError: The name cannot be written: it is a folder, lies below a file, or is too long.
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
                hint="make room or choose another place, then run the same command again; finished work is kept",
            ) from error
        raise


def write_atomically(path: Path, content: bytes) -> os.stat_result:
    """Write ``content`` to ``path`` as ``replace_atomically`` does."""
    return replace_atomically(path, lambda stream: stream.write(content))


def replace_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> os.stat_result:
    """Let ``write`` fill a temporary file, rename it to ``path`` durably, and return its status.

    The status (inode, size, time) tells this file from any that replaces it later.

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
            # A temporary file left behind would keep a full disk full.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Append one line durably; if a power cut left the last line without its end, end it first."""
    with storage_errors(path), path.open("a+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
        if not size:  # the file may be new, and its name not on disk yet
            sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory: without this, a rename may not survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory and its parents durably, if they do not exist."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder", hint="choose another --out")
    with storage_errors(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for created in missing:
            sync_directory(created.parent)


def require_writable(path: Path) -> None:
    """Check that a file or a folder can be made at ``path``: its nearest folder that exists can be written."""
    if isinstance(path, Address):
        raise UsageError(
            f"{path} is an address, and this is written to a disk", hint="name a path with --out"
        )
    with storage_errors(path):
        folder = next(each for each in path.absolute().parents if each.exists())
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file, not a folder", hint="choose another --out")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES, "")


def cache_directory(name: str) -> Path:
    """Return ``bancache/NAME`` in the user's cache directory.

    Raises:
        UsageError: The user has no home directory.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # its specification says to ignore a relative path
        return configured / "bancache" / name
    try:
        return Path.home() / ".cache" / "bancache" / name
    except RuntimeError as error:
        raise UsageError(
            "there is no home directory for what is kept between runs",
            hint="set XDG_CACHE_HOME to a directory",
        ) from error


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files and links below a folder in order; another process may add and remove some meanwhile."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in sorted([*names, *links]))


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder."""
    total = 0
    for file in files_below(folder):
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def free_bytes(path: Path) -> int:
    """Return the free space of the disk on which a file or folder is, or would be made."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    with storage_errors(existing):
        return shutil.disk_usage(existing).free


def remove_temporaries(directory: Path, of: str = "") -> None:
    """Delete the temporary files that killed processes left for ``of``, one name, or for any file below ``directory``."""
    for leftover in (
        directory.glob(f"{glob.escape(of)}.*{TEMPORARY_SUFFIX}") if of else files_below(directory)
    ):
        name = _TEMPORARY.fullmatch(leftover.name)
        if name and name["of"] == (of or name["of"]):
            leftover.unlink(missing_ok=True)


def read_json(path: Path, *, limit: int, error: type[BancacheError], hint: str = "") -> Any:
    """Read a JSON file of at most ``limit`` bytes; raise ``error`` for any problem with it."""
    content = read_bounded(path, limit=limit, error=error, hint=hint)
    try:
        return parse_json(content)
    except ValueError as broken:
        raise error(f"{path} is not valid JSON: {broken}", hint=hint) from broken


def read_bounded(path: Path, *, limit: int, error: type[BancacheError], hint: str = "") -> bytes:
    """Read a regular file of at most ``limit`` bytes; raise ``error`` for any problem with it."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise error(f"{path} is not a regular file", hint=hint)
        size = path.stat().st_size
        if size > limit:
            raise error(f"{path} is {size:,} bytes; at most {limit:,} make sense", hint=hint)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise error(f"{path} is missing", hint=hint) from missing
    except OSError as refused:
        raise error(
            f"{path} cannot be read: {(refused.strerror or str(refused)).lower()}", hint=hint
        ) from refused


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably with sorted keys, so that equal values give equal bytes."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return JSON as ``write_json`` writes it."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def state_of(file: Path) -> os.stat_result:
    """Return the state of a file; of a broken link its own, so that the link is named among the unreadable pictures."""
    try:
        return file.stat()
    except OSError:
        return file.lstat()
