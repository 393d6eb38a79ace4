"""Two local Zarr stores: one that writes durably, one that believes only what the manifest vouches for.

Stock Zarr neither flushes what it writes nor notices a chunk that is missing, empty or another's; both are
mended below its codecs, so nothing above has to know.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from bancache.errors import CacheDamagedError
from bancache.files import storage_errors, sync_directory, write_atomically
from bancache.fingerprint import fingerprint_file

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class Digest(NamedTuple):
    """A file's size in bytes and its sha256."""

    size: int
    sha256: str


class Chunk(NamedTuple):
    """What a reader knows of a chunk's file before it looks at it.

    Attributes:
        digest: What it is.
        decoded: How many bytes its frame unfolds to.
        name: What to call it when it is damaged.
    """

    digest: Digest
    decoded: int
    name: str


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


class DurableStore(LocalStore):
    """A store in which a key that was set is on disk, whole, and its digest known.

    Attributes:
        digests: Of every key that was set.
        marks: The files that they became.
    """

    def __init__(self, root: Path) -> None:
        """Open a store whose folders, as far as they are there, are on disk."""
        super().__init__(root)
        self.digests: dict[str, Digest] = {}
        self.marks: dict[str, Mark] = {}
        here = Path(self.root)
        self._flushed = {here, *here.parents, *(Path(folder) for folder, _, _ in os.walk(here))}

    # Zarr calls either of the two, by version and settings: there is one way to write.
    async def set(self, key: str, value: Buffer) -> None:
        """Write one key as ``set_sync`` does."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write one key: file beside it, flush, rename, flush the directory.

        Raises:
            StorageError: The disk is full, read-only or failing.
        """
        content, path = value.to_bytes(), Path(self.root) / key
        self._make_folder(path.parent)
        self.marks[key] = Mark.of(write_atomically(path, content))
        self.digests[key] = digest_of(content)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder, durably; one that is there may be another process's, made and not yet flushed."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            new = [one for one in (folder, *folder.parents) if one not in self._flushed]
            for one in reversed(new):
                sync_directory(one.parent)
                self._flushed.add(one)


class VerifiedStore(LocalStore):
    """A read-only store that returns only bytes whose digest the manifest holds.

    How the arrays are laid out and coded follows from the manifest too, and is not taken from the disk: no
    description that somebody else wrote reaches Zarr.
    """

    def __init__(self, root: Path, described: Mapping[str, bytes], chunks: Mapping[str, Chunk]) -> None:
        """Open a store.

        Args:
            root: The store's directory.
            described: The metadata to believe.
            chunks: All chunks there may be.
        """
        super().__init__(root, read_only=True)
        self._described, self._chunks = described, chunks

    # Zarr calls either of the two, by version and settings: there is one way to read.
    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a key's bytes as ``get_sync`` does."""
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a key's bytes, checked.

        Raises:
            CacheDamagedError: They are missing, or not those that were written.
        """
        if byte_range is not None:
            raise CacheDamagedError(f"{key} was asked for in part, which nothing here does")
        if key in self._described:
            content = self._described[key]
        elif key in self._chunks:
            content = read_chunk(Path(self.root), key, self._chunks[key])
        else:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several keys' bytes, each as ``get`` does."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]


def read_chunk(root: Path, key: str, chunk: Chunk) -> bytes:
    """Return a chunk's bytes as they were written.

    Raises:
        CacheDamagedError: They are missing, or others; the message names the region.
    """
    try:
        problem = inspect_size(root, key, chunk.digest.size)
        if problem is None:
            content = (root / key).read_bytes()
            problem = _inspect_content(content, chunk)
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    if problem is not None:
        raise damaged(chunk.name, problem, root)
    return content


def _inspect_content(content: bytes, chunk: Chunk) -> str | None:
    """Say what is wrong with a chunk's bytes, or None."""
    if hashlib.sha256(content).hexdigest() != chunk.digest.sha256:
        return "its sha256 is not the one written"
    found = frame_bytes(content[:18])
    if found != chunk.decoded:
        return f"it would unfold to {found or 'unknown'} bytes instead of {chunk.decoded:,}"
    return None


def frame_bytes(start: bytes) -> int | None:
    """Return the size that a Zstandard frame says it unfolds to (RFC 8878, 3.1.1), or None.

    The decoder allocates that much before it decodes anything, and refuses to write more.

    >>> import numcodecs
    >>> frame_bytes(numcodecs.Zstd().encode(bytes(70_000)))
    70000
    """
    if len(start) < 5 or start[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = start[4]
    single_segment = flags >> 5 & 1
    width = (single_segment, 2, 4, 8)[flags >> 6]
    begin = 6 - single_segment + (0, 1, 2, 4)[flags & 3]
    field = start[begin : begin + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


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
