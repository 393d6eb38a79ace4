"""Size and sha256 of each file of a cache, and the check that a file on disk still has them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta

from bancache.errors import CacheDamagedError
from bancache.system.address import Address
from bancache.system.checked import Count
from bancache.system.wording import command

WRONG_SHA256 = "its sha256 is not the one written"


class Digest(NamedTuple):
    """A file's size in bytes and its sha256."""

    size: Count
    sha256: Annotated[str, Meta(min_length=64, max_length=64)]


def digest_of(content: bytes | memoryview) -> Digest:
    """Return the size and sha256 of some bytes."""
    return Digest(len(content), hashlib.sha256(content).hexdigest())


def digests_for(
    files: Mapping[str, Digest], keys: Collection[str], limit: int = 1 << 53
) -> dict[str, Digest] | None:
    """Return the digests of files in the order of ``keys``; None if others are listed, or one has 0 or over ``limit`` bytes."""
    if len(files) != len(keys) or not all(key in files and 0 < files[key].size <= limit for key in keys):
        return None
    return {key: files[key] for key in keys}


class Mark(NamedTuple):
    """Identity of a file on disk: it changes when the file is replaced or written to."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """Return the mark of a file with this status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def inspect_size(root: Path, key: str, size: int) -> str | None:
    """Return what is wrong with a file's kind, place or size, or None; its content is not read."""
    path = root / key
    # A link anywhere below the root leads to a file outside the cache.
    if os.path.realpath(path) != str(Path(os.path.realpath(root)) / key):
        return "it is reached by a link"
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "it is missing"
    if not stat.S_ISREG(found.st_mode):
        return "it is not a plain file"
    return None if found.st_size == size else f"it has {found.st_size:,} bytes instead of {size:,}"


def inspect_file(root: Path, key: str, digest: Digest, stream: BufferedReader | None = None) -> str | None:
    """Return what is wrong with a file after reading all of it (from ``stream`` if it is open already), or None."""
    try:
        if problem := inspect_size(root, key, digest.size):
            return problem
        with nullcontext(stream) if stream else (root / key).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if found == digest.sha256 else WRONG_SHA256


def damaged(name: str, problem: str, root: Path) -> CacheDamagedError:
    """Return the error for one damaged file or shard of a cache."""
    place = root if isinstance(root, Address) else root.name
    return CacheDamagedError(
        f"{place}: {name} is damaged: {problem}", hint=f"{command('repair', root)} makes it anew"
    )
