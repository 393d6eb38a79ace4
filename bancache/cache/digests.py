"""What is known of each file of a cache, and whether the file on the disk is still that one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bancache.errors import CacheDamagedError
from bancache.system.fingerprint import fingerprint_file


class Digest(NamedTuple):
    """A file's size in bytes and its sha256."""

    size: int
    sha256: str


def digest_of(content: bytes | memoryview) -> Digest:
    """Return the size and sha256 of some bytes."""
    return Digest(len(content), hashlib.sha256(content).hexdigest())


def parse_digests(files: Any, keys: Collection[str]) -> dict[str, Digest] | None:
    """Return the digests of exactly the files ``keys`` as JSON keeps them, or None where it is anything else."""
    if not isinstance(files, dict) or len(files) != len(keys) or not all(key in files for key in keys):
        return None
    digests = {}
    for key in keys:
        match files[key]:
            case [int(size), str(sha256)] if not isinstance(size, bool):
                digests[key] = Digest(size, sha256)
            case _:
                return None
    return digests


class Mark(NamedTuple):
    """What tells a file that was written or read from any that is put in its place later."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """Return what a file's status says."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def inspect_size(root: Path, key: str, size: int) -> str | None:
    """Say what is wrong with a file as far as its name and size tell, or None."""
    path = root / key
    # A link anywhere below the root leads to a file that is not the cache's own.
    if os.path.realpath(path) != str(Path(os.path.realpath(root)) / key):
        return "it is reached by a link"
    if not path.is_file():
        return "it is not a plain file" if path.exists() else "it is missing"
    found = path.stat().st_size
    return None if found == size else f"it has {found:,} bytes instead of {size:,}"


def inspect_file(root: Path, key: str, digest: Digest) -> str | None:
    """Say what is wrong with a file after reading all of it, or None."""
    try:
        problem = inspect_size(root, key, digest.size)
        if problem is None and fingerprint_file(root / key) != digest.sha256:
            problem = "its sha256 is not the one written"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    return problem


def require_descriptions(root: Path, keys: Iterable[str], digests: Mapping[str, Digest]) -> None:
    """Refuse a cache whose zarr.json files are not as written: nothing here reads them, other programs do.

    Raises:
        CacheDamagedError: Naming the first that is not.
    """
    for key in keys:
        if problem := inspect_file(root, key, digests[key]):
            raise damaged(key, problem, root)


def damaged(name: str, problem: str, root: Path) -> CacheDamagedError:
    """Return the error for one damaged file of a cache."""
    return CacheDamagedError(
        f"{root.name}: {name} is damaged: {problem}", hint=f"bancache repair {root} makes it anew"
    )
