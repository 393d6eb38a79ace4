"""Views and shards of a cache as arrays: reading them (``ViewReader``), and encoding a shard into chunk files."""

from __future__ import annotations

import itertools
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.chunks import CHECKSUM_BYTES, encode_chunk, read_chunk
from bancache.cache.delta_codec import fold, unfold
from bancache.cache.digests import Digest, damaged, inspect_file
from bancache.cache.layout import Layout, Shard
from bancache.cache.profile import ZSTD_LEVELS, folds
from bancache.encodings.fields import FieldSpec

# Encoded targets of some samples in one view: an array (samples, *shape) for each field of the encoding.
EncodedView = dict[str, NDArray[Any]]
_Identity = tuple[int, int, int, int, int]
# Decoded bytes from which on several threads read: sha256 and Zstandard take one core longer than a disk takes.
_THREADED_BYTES, _MOST_THREADS = 64 << 20, 8


class ViewReader(ABC):
    """Reads encoded targets of one cache, each file checked against its digest."""

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        self._path, self._layout, self._files = path, layout, files
        self._checked_metadata = False

    def read_view(self, view_index: int) -> EncodedView:
        """Return one view of every sample; the first call also checks the zarr.json files."""
        if not self._checked_metadata:
            for key in self._layout.metadata_keys():
                if problem := inspect_file(self._path, key, self._files[key]):
                    raise damaged(key, problem, self._path)
            self._checked_metadata = True
        return self.read(self._layout.shards_of(view_index))

    @abstractmethod
    def read(self, shards: Sequence[Shard]) -> EncodedView:
        """Return the samples of consecutive shards of one view."""


class CompressedViews(ViewReader):
    """Reads profiles ``default`` and ``compact`` into new arrays; every chunk is checked each time.

    Folded codes are unfolded. View 0, which they are relative to, stays in memory once another view was read whole.
    """

    _references: EncodedView | None = None

    def read(self, shards: Sequence[Shard]) -> EncodedView:
        """Return consecutive shards, read from disk."""
        references = self._refer(shards) if self._layout.folded and shards[0].view_index else {}
        encoded = read_chunks(self._path, self._layout, shards, self._files)
        for name, reference in references.items():
            # One shard at a time, as it was folded: the temporary arrays are a few times a shard.
            for shard in shards:
                rows = slice(shard.start - shards[0].start, shard.stop - shards[0].start)
                encoded[name][rows] = unfold(encoded[name][rows], reference[rows])
        return encoded

    def _refer(self, shards: Sequence[Shard]) -> EncodedView:
        """Return the folded fields of the same samples in view 0."""
        whole = len(shards) == self._layout.blocks
        if whole and self._references is not None:
            return self._references
        required = [self._layout.shard(shard.block) for shard in shards]
        first = read_chunks(self._path, self._layout, required, self._files)
        references = {name: first[name] for name in self._layout.folded}
        if whole:
            # Two threads may both read it: the values are the same.
            self._references = references
        return references


class MappedViews(ViewReader):
    """Maps views of profile ``mmap`` copy-on-write: writing to a returned array never changes the cache.

    A view of several files is copied into one array. A file is read and checked when it is first mapped. After that it is
    trusted while device, inode, size and times of change stay the same.
    """

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        """Check that each file has the size of a chunk."""
        super().__init__(path, layout, files)
        self._trusted: dict[str, _Identity] = {}
        expected = [size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()]
        for shard in layout.shards():
            found = [files[key].size for key in layout.chunk_keys(shard)]
            if found != expected:
                raise damaged(str(shard), f"its files would have {found} bytes instead of {expected}", path)

    def read(self, shards: Sequence[Shard]) -> EncodedView:
        """Return consecutive shards, mapped or copied."""
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


def encode_shard(
    path: Path, layout: Layout, shard: Shard, fields: Mapping[str, NDArray[Any]], files: Mapping[str, Digest]
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each chunk file of a shard.

    ``fields`` has an array (shard.stop - shard.start, *shape) for each field; ``files`` has the digests of the shard
    that ``shard`` requires, if it requires one.
    """
    required = layout.requires(shard)
    references = read_chunks(path, layout, [required], files) if required else {}
    level = ZSTD_LEVELS.get(layout.manifest.profile)
    for field, key in zip(layout.manifest.fields, layout.chunk_keys(shard), strict=True):
        values = fields[field.name]
        if required and field.name in layout.folded:
            values = fold(values, references[field.name])
        yield key, encode_chunk(values, layout.block, level)


def read_chunks(
    path: Path, layout: Layout, shards: Sequence[Shard], files: Mapping[str, Digest]
) -> EncodedView:
    """Return each field of consecutive shards of one view, as stored in compressed chunks."""
    first, sizes, specs = shards[0].start, layout.chunk_bytes(), layout.manifest.fields
    keys = [layout.chunk_keys(shard) for shard in shards]
    shape = (shards[-1].stop - first,)
    encoded = {
        field.name: np.empty(shape + field.shape, np.dtype(field.dtype).newbyteorder("<")) for field in specs
    }

    def read(position: int, number: int) -> None:
        shard, key, name = shards[number], keys[number][position], specs[position].name
        rows = encoded[name][shard.start - first : shard.stop - first]
        read_chunk(path, key, files[key], rows, chunk_bytes=sizes[name], shard=shard)

    parts = list(itertools.product(range(len(specs)), range(len(shards))))
    if len(shards) * sum(sizes.values()) < _THREADED_BYTES:
        for part in parts:
            read(*part)
    else:
        with ThreadPoolExecutor(_threads()) as pool:
            list(pool.map(read, *zip(*parts, strict=True)))
    return {field.name: encoded[field.name].astype(field.dtype, copy=False) for field in specs}


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)


def read_shard(path: Path, layout: Layout, shard: Shard, files: Mapping[str, Digest]) -> EncodedView:
    """Return the values of a shard that is not stored relative to another one, in any profile."""
    if layout.manifest.profile in ZSTD_LEVELS:
        return read_chunks(path, layout, [shard], files)
    encoded, rows = {}, shard.stop - shard.start
    for field, key in zip(layout.manifest.fields, layout.chunk_keys(shard), strict=True):
        if problem := inspect_file(path, key, files[key]):
            raise damaged(str(shard), problem, path)
        dtype = np.dtype(field.dtype).newbyteorder("<")
        values = np.fromfile(path / key, dtype, rows * math.prod(field.shape))
        encoded[field.name] = values.reshape(rows, *field.shape).astype(field.dtype, copy=False)
    return encoded


def stored_bytes(
    fields: Mapping[str, NDArray[Any]],
    classes: int,
    profile: str,
    *,
    reference: Mapping[str, NDArray[Any]] | None = None,
) -> int:
    """Return the bytes that some samples in one view take on disk, without checksums and metadata.

    ``fields`` has an array (samples, *shape) for each field, ``reference`` the same samples' fields in view 0; it is None
    for view 0 itself, which no profile folds.
    """
    size = 0
    for name, values in fields.items():
        if reference is not None and folds(profile, values.dtype, values.shape[1:], classes):
            values = fold(values, reference[name])
        size += len(encode_chunk(values, len(values), ZSTD_LEVELS.get(profile))) - CHECKSUM_BYTES
    return size


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
