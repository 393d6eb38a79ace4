"""Restoring single files of a complete cache, each only with the very bytes that were written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bancache.cache.digests import digest_of, inspect_file
from bancache.cache.layout import Layout, Shard
from bancache.cache.reader import open_cache
from bancache.cache.views import encode_shard
from bancache.cache.zarr_metadata import describe_arrays
from bancache.errors import MismatchError
from bancache.system.files import make_directory, write_atomically
from bancache.system.locks import exclusive


class Repairer:
    """A complete cache whose files this process may restore; made by ``open_repairer``.

    Attributes:
        path: The cache's directory.
        layout: Its shards.
    """

    def __init__(self, path: Path) -> None:
        cache = open_cache(path)
        self.path, self.layout, self._written = path, Layout(cache.manifest), cache.digests

    def restore_descriptions(self) -> None:
        """Restore the zarr.json files that are missing or not as written.

        Raises:
            MismatchError: The installed version of Zarr writes other bytes for the same arrays.
        """
        for key, content in describe_arrays(self.layout).items():
            if inspect_file(self.path, key, self._written[key]):
                self._put(key, content, f"{key}, as this version of Zarr writes it,")

    def rewrite(self, shard: Shard, fields: Mapping[str, NDArray[Any]]) -> None:
        """Restore the files of a shard from an array (shard.stop - shard.start, *shape) for each field.

        Raises:
            CacheDamagedError: The shard that this one is stored relative to is itself damaged.
            MismatchError: The encoded bytes are not the ones that were written.
            StorageError: The disk is full, read-only or failing.
        """
        for key, content in encode_shard(self.path, self.layout, shard, fields, self._written):
            self._put(key, content, f"{shard}, as computed here,")

    def remove(self, keys: list[str]) -> None:
        """Delete files and links that do not belong to the cache."""
        for key in keys:
            if (self.path / key).is_symlink() or not (self.path / key).is_dir():
                (self.path / key).unlink(missing_ok=True)

    def _put(self, key: str, content: bytes, subject: str) -> None:
        if digest_of(content) != self._written[key]:
            raise MismatchError(
                f"{subject} is not what was written: libraries, threads or hardware differ from the dump's",
                hint="repair on the machine of the dump, or dump again with --overwrite",
            )
        for part in (Path(key), *Path(key).parents):
            if part.name and (self.path / part).is_symlink():
                (self.path / part).unlink()  # its target is left as it is
        make_directory((self.path / key).parent)
        write_atomically(self.path / key, content)


@contextmanager
def open_repairer(path: str | os.PathLike[str]) -> Iterator[Repairer]:
    """Lock a complete cache for repair.

    Raises:
        CacheDamagedError: Its manifest is damaged, or it is incomplete.
        BusyError: Another process is writing it.
    """
    path = Path(path)
    with exclusive(path):
        yield Repairer(path)
