"""Where a cache's files lie: in a directory or in an object store. Both give a file's bytes only as its digest says."""

from __future__ import annotations

import hashlib
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bancache.cache.digests import WRONG_SHA256, Digest, damaged, digest_of, inspect_file, inspect_size
from bancache.cache.directory import write_file
from bancache.cache.kept_files import KeptFiles
from bancache.cache.manifest_io import (
    MANIFEST,
    MANIFEST_LIMIT,
    manifest_object,
    parse_manifest,
    read_manifest,
)
from bancache.errors import CacheDamagedError, UsageError
from bancache.system.address import Address, as_place
from bancache.system.bucket import Bucket
from bancache.system.files import files_below
from bancache.system.locks import Reading
from bancache.system.read_ahead import in_threads

AT_ONCE = 8
_MEMORY = 256 << 20
Memory = mmap.mmap | bytearray
_Identity = tuple[int, int, int, int, int]


class Wanted(NamedTuple):
    """A file, its digest, and what errors call it: usually its shard."""

    key: str
    digest: Digest
    name: object


class Files(ABC):
    """The files of one cache, by their keys: their paths below its directory or address.

    Attributes:
        path: The directory, or the ``Address``.
        mappable: Whether ``mapped`` costs next to nothing the second time.
    """

    path: Path
    mappable: bool

    @abstractmethod
    def manifest(self) -> tuple[dict[str, Any], int]:
        """Return the values in manifest.json and its size in bytes, and remember which one it is."""

    @abstractmethod
    def is_current(self) -> bool:
        """Return whether manifest.json is still the one that ``manifest`` read."""

    @abstractmethod
    def keep(self, digest: str, files: Mapping[str, Digest], limit: int) -> None:
        """Keep files of a cache that is not on this machine here, up to ``limit`` bytes, once they were read."""

    @abstractmethod
    def read(self, wanted: Sequence[Wanted]) -> Iterator[bytes]:
        """Yield the content of each file in order; CacheDamagedError if one is not as its digest says."""

    @abstractmethod
    def mapped(self, wanted: Sequence[Wanted]) -> Iterator[Memory]:
        """Yield what ``read`` yields as memory that may be written to without changing the cache."""

    @abstractmethod
    def problems(self, files: Iterable[tuple[str, Digest]]) -> Iterator[str | None]:
        """Read files whole and yield what is wrong with each, or None."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Write or replace a file durably."""

    @abstractmethod
    def keys(self, most: int) -> list[str]:
        """Return the keys of all files; a store that lists more than ``most`` is damaged."""


def open_files(path: str | os.PathLike[str]) -> Files:
    """Return the files of a cache at a path or at an address; nothing is read."""
    place = as_place(path)
    return RemoteFiles(place) if isinstance(place, Address) else LocalFiles(place)


class LocalFiles(Files):
    """Files in a directory.

    While this object lives, a manifest that ``manifest`` read is locked against commands that replace it. A mapped file
    is read and checked when it is first mapped. After that it is trusted while device, inode, size and times of change
    stay the same.
    """

    mappable = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading: Reading | None = None
        self._trusted: dict[str, _Identity] = {}

    def manifest(self) -> tuple[dict[str, Any], int]:
        """Read manifest.json."""
        file = self.path / MANIFEST
        while True:
            try:
                self._reading = Reading(file)
            except OSError:
                read_manifest(self.path)  # says what is wrong
                raise
            stored = read_manifest(self.path)
            if self._reading.is_current():  # it may have been replaced between opening and locking
                return stored, file.stat().st_size

    def is_current(self) -> bool:
        """Return whether manifest.json is the one that was read."""
        return self._reading is not None and self._reading.is_current()

    def keep(self, digest: str, files: Mapping[str, Digest], limit: int) -> None:
        """Refuse it."""
        raise UsageError(
            f"{self.path} is a folder; only of a cache in an object store are files kept",
            hint="leave out --keep-local",
        )

    def read(self, wanted: Sequence[Wanted]) -> Iterator[bytes]:
        """Yield the content of each file."""
        return map(self._read, wanted)

    def mapped(self, wanted: Sequence[Wanted]) -> Iterator[Memory]:
        """Yield each file as memory."""
        return map(self._map, wanted)

    def problems(self, files: Iterable[tuple[str, Digest]]) -> Iterator[str | None]:
        """Yield what is wrong with each file."""
        return (inspect_file(self.path, key, digest) for key, digest in files)

    def write(self, key: str, content: bytes) -> None:
        """Write a file; a link in its place is removed, its target is left as it is."""
        for part in (Path(key), *Path(key).parents):
            if part.name and (self.path / part).is_symlink():
                (self.path / part).unlink()
        write_file(self.path, key, content)

    def keys(self, most: int) -> list[str]:
        """Return the keys of all files."""
        return [file.relative_to(self.path).as_posix() for file in files_below(self.path)]

    def _read(self, wanted: Wanted) -> bytes:
        content = b""
        try:
            problem = inspect_size(self.path, wanted.key, wanted.digest.size)
            if problem is None:
                content = (self.path / wanted.key).read_bytes()
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
        if problem is None and hashlib.sha256(content).hexdigest() != wanted.digest.sha256:
            problem = WRONG_SHA256
        if problem is not None:
            raise damaged(str(wanted.name), problem, self.path)
        return content

    def _map(self, wanted: Wanted) -> mmap.mmap:
        key, digest, name = wanted
        try:
            with (self.path / key).open("rb") as stream:
                found = _identity(os.fstat(stream.fileno()))
                if self._trusted.get(key) != found:
                    if problem := inspect_file(self.path, key, digest, stream):
                        raise damaged(str(name), problem, self.path)
                    self._trusted[key] = found
                return mmap.mmap(stream.fileno(), digest.size, access=mmap.ACCESS_COPY)
        except OSError as error:
            problem = inspect_file(self.path, key, digest) or f"it cannot be mapped: {error.strerror}"
            raise damaged(str(name), problem, self.path) from error


class RemoteFiles(Files):
    """Objects below an address; a few are fetched at once. StorageError if the store keeps failing."""

    mappable = False

    def __init__(self, path: Address) -> None:
        self.path, self._bucket = path, Bucket(str(path))
        self._manifest: Digest | None = None
        self._kept: KeptFiles | None = None

    def manifest(self) -> tuple[dict[str, Any], int]:
        """Read manifest.json."""
        content = manifest_object(self._bucket)
        self._manifest = digest_of(content)
        return parse_manifest(content, self.path / MANIFEST), len(content)

    def is_current(self) -> bool:
        """Return whether manifest.json is the one that was read."""
        content = self._bucket.get(MANIFEST, MANIFEST_LIMIT)
        return content is not None and digest_of(content) == self._manifest

    def keep(self, digest: str, files: Mapping[str, Digest], limit: int) -> None:
        """Keep files in the user's cache directory."""
        self._kept = KeptFiles(digest, files, limit)

    def read(self, wanted: Sequence[Wanted]) -> Iterator[bytes]:
        """Yield the content of each file."""
        return in_threads(self._read, wanted, at_once(max((each.digest.size for each in wanted), default=1)))

    def mapped(self, wanted: Sequence[Wanted]) -> Iterator[Memory]:
        """Yield each file as memory."""
        return map(bytearray, self.read(wanted))

    def problems(self, files: Iterable[tuple[str, Digest]]) -> Iterator[str | None]:
        """Yield what is wrong with each file."""
        files = list(files)
        found = in_threads(self._fetch, files, at_once(max((digest.size for _, digest in files), default=1)))
        return (problem for _, problem in found)

    def write(self, key: str, content: bytes) -> None:
        """Put an object."""
        self._bucket.put(key, content)

    def keys(self, most: int) -> list[str]:
        """Return the keys of all files."""
        return list(self._bucket.listed(most))

    def _read(self, wanted: Wanted) -> bytes:
        content, problem = self._fetch((wanted.key, wanted.digest))
        if problem is not None:
            raise damaged(str(wanted.name), problem, self.path)
        return content

    def _fetch(self, file: tuple[str, Digest]) -> tuple[bytes, str | None]:
        key, digest = file
        if self._kept is not None and (kept := self._kept.get(key, digest)) is not None:
            return kept, None
        try:
            content = self._bucket.get(key, digest.size)
        except CacheDamagedError:
            return b"", f"it has more than {digest.size:,} bytes"
        if content is None:
            return b"", "it is missing"
        if len(content) != digest.size:
            return b"", f"it has {len(content):,} bytes instead of {digest.size:,}"
        if digest_of(content) != digest:
            return content, WRONG_SHA256
        if self._kept is not None:
            self._kept.put(key, content)
        return content, None


def at_once(largest: int) -> int:
    """Return how many objects of at most ``largest`` bytes may be in memory at once."""
    return max(1, min(AT_ONCE, _MEMORY // max(1, largest)))


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
