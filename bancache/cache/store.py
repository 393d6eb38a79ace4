"""Two local Zarr stores: one that writes durably, one that believes only what the manifest vouches for.

Stock Zarr neither flushes what it writes nor notices a chunk that is missing, empty or another's; both are
mended below its codecs, so nothing above has to know.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from bancache.errors import CacheDamagedError
from bancache.files import make_directory, write_atomically

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

# A file's size in bytes and its sha256.
Digest = tuple[int, str]


def digest_of(content: bytes | memoryview) -> Digest:
    """Return the size and sha256 of some bytes."""
    return len(content), hashlib.sha256(content).hexdigest()


class DurableStore(LocalStore):
    """A store in which a key that ``set`` returned for is on disk, whole, and its digest known."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.digests: dict[str, Digest] = {}

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key: file beside it, flush, rename, flush the directory."""
        content = value.to_bytes()
        await asyncio.to_thread(self._write, Path(self.root) / key, content)
        self.digests[key] = digest_of(content)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        make_directory(path.parent)
        write_atomically(path, content)


class VerifiedStore(LocalStore):
    """A read-only store that returns only bytes whose digest the manifest holds."""

    def __init__(self, root: Path, digests: Mapping[str, Digest], names: Mapping[str, str]) -> None:
        """Open a store.

        Args:
            root: The store's directory.
            digests: Size and sha256 of every file there may be.
            names: What to call a file when it is damaged, where its key does not say it.
        """
        super().__init__(root, read_only=True)
        self._digests, self._names = digests, names

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a key's bytes, checked.

        Raises:
            CacheDamagedError: They are missing, or not those that were written.
        """
        if key not in self._digests:
            return None
        path = Path(self.root) / key
        size, expected = self._digests[key]
        problem = inspect_size(path, size)
        content = None if problem else await super().get(key, prototype)
        if content is not None and hashlib.sha256(content.as_numpy_array().data).hexdigest() != expected:
            problem = "its sha256 is not the one written"
        if problem or content is None:
            raise damaged(self._names.get(key, key), problem or "it is missing", Path(self.root))
        if byte_range is not None:
            raise CacheDamagedError(f"{path} was asked for in part, which nothing here does")
        return content


def inspect_size(path: Path, size: int) -> str | None:
    """Say what is wrong with a file as far as its name and size tell, or None."""
    if path.is_symlink() or not path.is_file():
        return "it is not a plain file" if path.exists() or path.is_symlink() else "it is missing"
    found = path.stat().st_size
    return None if found == size else f"it has {found:,} bytes instead of {size:,}"


def damaged(name: str, problem: str, root: Path) -> CacheDamagedError:
    """Return the error for one damaged file of a cache."""
    return CacheDamagedError(
        f"{root.name}: {name} is damaged: {problem}", hint=f"bancache repair {root} makes it anew"
    )
