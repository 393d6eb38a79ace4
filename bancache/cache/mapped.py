"""Views of a cache that is not compressed, as memory that the system pages in and all processes share.

A file is checked when it is first mapped: its place, its size, its sha256. After that it is trusted for as long
as the system says that it is the same file, unchanged: one look at its inode instead of a look at every byte.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.digests import Digest, damaged, inspect_size, require_descriptions
from bancache.cache.layout import Layout, Shard
from bancache.encodings.fields import FieldSpec

CHECKSUM_BYTES = 4
_Identity = tuple[int, int, int, int, int]


class MappedViews:
    """Maps views; whoever writes to what it returns writes to a copy of that page, never to the cache."""

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        """Believe of a cache at ``path`` what ``files`` says.

        Raises:
            CacheDamagedError: A file of that size does not hold a shard.
        """
        self._path, self._layout, self._files = path, layout, files
        self._trusted: dict[str, _Identity] = {}
        self._described = False
        expected = [size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()]
        for shard in layout.shards():
            found = [files[key].size for key in layout.chunk_keys(shard)]
            if found != expected:
                raise damaged(str(shard), f"its files would have {found} bytes instead of {expected}", path)

    def read(self, view_index: int) -> dict[str, NDArray[Any]]:
        """Return each field of all samples, (samples, *shape); several files of a view index are copied together.

        Raises:
            CacheDamagedError: A file is missing or not as written; the message names its shard.
        """
        if not self._described:
            require_descriptions(self._path, self._layout.metadata_keys(), self._files)
            self._described = True
        blocks = self._layout.blocks
        shards = [self._layout.shard(view_index * blocks + block) for block in range(blocks)]
        encoded = {}
        for position, field in enumerate(self._layout.manifest.fields):
            keys = [self._layout.chunk_keys(shard)[position] for shard in shards]
            parts = [self._map(field, *item) for item in zip(shards, keys, strict=True)]
            encoded[field.name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return encoded

    def shard(self, shard: Shard) -> dict[str, NDArray[Any]]:
        """Return each field of a shard's samples, (shard.stop - shard.start, *shape).

        Raises:
            CacheDamagedError: A file is missing or not as written.
        """
        fields = zip(self._layout.manifest.fields, self._layout.chunk_keys(shard), strict=True)
        return {field.name: self._map(field, shard, key) for field, key in fields}

    def _map(self, field: FieldSpec, shard: Shard, key: str) -> NDArray[Any]:
        """Return a shard's rows of one field; the map lives as long as the array."""
        try:
            with (self._path / key).open("rb") as stream:
                found = _identity(os.fstat(stream.fileno()))
                if self._trusted.get(key) != found and (problem := self._inspect(key, stream)):
                    raise damaged(str(shard), problem, self._path)
                content = mmap.mmap(stream.fileno(), self._files[key].size, access=mmap.ACCESS_COPY)
        except OSError as error:
            problem = inspect_size(self._path, key, self._files[key].size)
            problem = problem or f"it cannot be read: {error.strerror}"
            raise damaged(str(shard), problem, self._path) from error
        self._trusted[key] = found
        rows, dtype = shard.stop - shard.start, np.dtype(field.dtype).newbyteorder("<")
        return np.frombuffer(content, dtype, rows * math.prod(field.shape)).reshape(rows, *field.shape)

    def _inspect(self, key: str, stream: BufferedReader) -> str | None:
        """Say what is wrong with an open file after reading all of it, or None."""
        problem = inspect_size(self._path, key, self._files[key].size)
        if problem is None and hashlib.file_digest(stream, "sha256").hexdigest() != self._files[key].sha256:
            problem = "its sha256 is not the one written"
        return problem


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
