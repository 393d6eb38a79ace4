"""Restoring single files of a complete cache, each with the very bytes that were written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bancache.cache.digests import digest_of
from bancache.cache.directory import remove_working_files
from bancache.cache.files import open_files
from bancache.cache.layout import Layout, Shard, describe_arrays
from bancache.cache.reader import open_cache
from bancache.cache.remote_writer import remove_working
from bancache.cache.views import encode_shard
from bancache.errors import MismatchError
from bancache.system.address import Address, as_place
from bancache.system.bucket import Bucket
from bancache.system.locks import exclusive


class Repairer:
    """Restores files; made by ``open_repairer``."""

    def __init__(self, path: Path) -> None:
        self._cache = cache = open_cache(path)
        self.path, self.layout, self._written = cache.path, Layout(cache.manifest), cache.digests
        self._files = open_files(path)

    def restore_descriptions(self) -> None:
        """Restore the zarr.json files that are missing or not as written, and remove what a killed writer left."""
        if isinstance(self.path, Address):
            remove_working(Bucket(str(self.path)))
        else:
            remove_working_files(self.path)
        for key, content in describe_arrays(self.layout).items():
            if any(self._files.problems([(key, self._written[key])])):
                self._put(key, content, f"{key}, as this version of Zarr writes it,")

    def rewrite(self, shard: Shard, fields: Mapping[str, NDArray[Any]]) -> None:
        """Restore the files of a shard from an array (shard.stop - shard.start, *shape) for each field."""
        for key, content in encode_shard(self._files, self.layout, shard, fields, self._written):
            self._put(key, content, f"{shard}, as computed here,")

    def _put(self, key: str, content: bytes, subject: str) -> None:
        if digest_of(content) != self._written[key]:
            raise MismatchError(
                f"{subject} is not what was written: libraries, threads or hardware differ from the dump's",
                hint="repair on the machine of the dump, or dump again with --overwrite",
            )
        self._cache._require_current()
        self._files.write(key, content)


@contextmanager
def open_repairer(path: str | os.PathLike[str]) -> Iterator[Repairer]:
    """Lock a complete cache for repair; at an address, where only the bytes that it had are put, nothing is locked."""
    place = as_place(path)
    with nullcontext() if isinstance(place, Address) else exclusive(place):
        yield Repairer(place)
