"""A local Zarr store that writes durably: stock Zarr flushes nothing.

It is mended below the codecs, so nothing above has to know.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from bancache.cache.digests import Digest, Mark, digest_of
from bancache.system.files import storage_errors, sync_directory, write_atomically

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer


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
