"""Putting back single files of a complete cache, each only if it is, byte for byte, the one that was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.compressed import fold_shard
from bancache.cache.digests import digest_of, inspect_file
from bancache.cache.layout import Layout, Shard
from bancache.cache.reader import open_cache
from bancache.cache.zarr_metadata import describe_arrays
from bancache.errors import MismatchError
from bancache.system.files import make_directory, write_atomically
from bancache.system.locks import exclusive


class Repairer:
    """A complete cache whose files this process may put back."""

    def __init__(self, path: Path) -> None:
        """Not for callers: see ``open_repairer``."""
        cache = open_cache(path)
        self.path, self.layout, self._written = path, Layout(cache.manifest), cache.digests
        self._described = describe_arrays(self.layout)

    def restore_descriptions(self) -> None:
        """Put back the metadata files that are missing or not as written.

        Raises:
            MismatchError: This version of Zarr describes the same arrays with other bytes.
        """
        for key, content in self._described.items():
            if inspect_file(self.path, key, self._written[key]):
                self._put(key, content, f"{key}, as this version of Zarr writes it,")

    def rewrite(self, shard: Shard, fields: Mapping[str, NDArray[Any]]) -> None:
        """Put back the files of a shard.

        Args:
            shard: Which.
            fields: For each field, an array (shard.stop - shard.start, *shape) of its dtype.

        Raises:
            CacheDamagedError: The shard that this one is stored relative to is itself damaged.
            MismatchError: They do not become the bytes that were written.
            StorageError: The disk is full, read-only or failing.
        """
        import zarr
        from zarr.storage import MemoryStore

        prototype = zarr.core.buffer.default_buffer_prototype()
        files: dict[str, Any] = {
            key: prototype.buffer.from_bytes(content) for key, content in self._described.items()
        }
        stored = fold_shard(self.path, self.layout, shard, fields, self._written)
        for name, values in stored.items():
            with zarr.config.set({"array.write_empty_chunks": True}):
                array: Any = zarr.open_array(MemoryStore(files), path=name, mode="r+", zarr_format=3)
            array[shard.view_index : shard.view_index + 1, shard.start : shard.stop] = values[np.newaxis]
        for key in self.layout.chunk_keys(shard):
            self._put(key, files[key].to_bytes(), f"{shard}, as the teacher answers here,")

    def remove(self, keys: list[str]) -> None:
        """Delete files and links that do not belong to the cache."""
        for key in keys:
            if (self.path / key).is_symlink() or not (self.path / key).is_dir():
                (self.path / key).unlink(missing_ok=True)

    def _put(self, key: str, content: bytes, what: str) -> None:
        if digest_of(content) != self._written[key]:
            raise MismatchError(
                f"{what} is not the one that was written: other libraries, threads or hardware than at the dump",
                hint="repair on the machine of the dump, or dump again with --overwrite",
            )
        for part in (Path(key), *Path(key).parents):
            if part.name and (self.path / part).is_symlink():
                (self.path / part).unlink()  # where it leads to is left as it is
        make_directory((self.path / key).parent)
        write_atomically(self.path / key, content)


@contextmanager
def open_repairer(path: Path) -> Iterator[Repairer]:
    """Hold a complete cache for repair.

    Raises:
        CacheDamagedError: Its manifest is damaged, or it is incomplete.
        BusyError: Another process is writing it.
    """
    with exclusive(path):
        yield Repairer(path)
