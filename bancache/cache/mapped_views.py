"""Reading views of a cache in profile ``mmap``: memory that the system pages in and that all processes share.

A file is read and checked when it is first mapped. After that it is trusted while device, inode, size and times of change
stay the same.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.chunks import CHECKSUM_BYTES
from bancache.cache.digests import Digest, damaged, inspect_file
from bancache.cache.layout import Layout, Shard
from bancache.cache.views import EncodedView, ViewReader
from bancache.encodings.fields import FieldSpec

_Identity = tuple[int, int, int, int, int]


class MappedViews(ViewReader):
    """Maps views copy-on-write: writing to a returned array never changes the cache.

    A view of several files is copied into one array.
    """

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        """Check that each file has the size of a chunk.

        Raises:
            CacheDamagedError: The manifest lists a file with another size.
        """
        super().__init__(path, layout, files)
        self._trusted: dict[str, _Identity] = {}
        expected = [size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()]
        for shard in layout.shards():
            found = [files[key].size for key in layout.chunk_keys(shard)]
            if found != expected:
                raise damaged(str(shard), f"its files would have {found} bytes instead of {expected}", path)

    def _read(self, shards: Sequence[Shard]) -> EncodedView:
        encoded = {}
        for position, field in enumerate(self._layout.manifest.fields):
            parts = [self._map(field, shard, self._layout.chunk_keys(shard)[position]) for shard in shards]
            encoded[field.name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return encoded

    def _map(self, field: FieldSpec, shard: Shard, key: str) -> NDArray[Any]:
        """Return a shard's rows of one field; the mapping lives as long as the array."""
        digest = self._files[key]
        try:
            with (self._path / key).open("rb") as stream:
                found = _identity(os.fstat(stream.fileno()))
                if self._trusted.get(key) != found:
                    if problem := inspect_file(self._path, key, digest, stream):
                        raise damaged(str(shard), problem, self._path)
                    self._trusted[key] = found
                content = mmap.mmap(stream.fileno(), digest.size, access=mmap.ACCESS_COPY)
        except OSError as error:
            problem = inspect_file(self._path, key, digest) or f"it cannot be mapped: {error.strerror}"
            raise damaged(str(shard), problem, self._path) from error
        rows, dtype = shard.stop - shard.start, np.dtype(field.dtype).newbyteorder("<")
        return np.frombuffer(content, dtype, rows * math.prod(field.shape)).reshape(rows, *field.shape)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
