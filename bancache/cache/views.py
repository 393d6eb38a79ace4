"""Views and shards of a cache as arrays: reading them (``ViewReader``), and encoding a shard into chunk files."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.chunks import CHECKSUM_BYTES, decode_chunk, encode_chunk
from bancache.cache.delta_codec import fold, unfold
from bancache.cache.digests import Digest, damaged
from bancache.cache.files import Files, Memory, Wanted
from bancache.cache.layout import Layout, Shard
from bancache.cache.profile import ZSTD_LEVELS, folds
from bancache.encodings.fields import FieldSpec

# Encoded targets of some samples in one view: an array (samples, *shape) for each field of the encoding.
EncodedView = dict[str, NDArray[Any]]
# Decoded bytes from which on several threads read: sha256 and Zstandard take one core longer than a disk takes.
_THREADED_BYTES, _MOST_THREADS = 64 << 20, 8


class ViewReader(ABC):
    """Reads encoded targets of one cache, each file checked against its digest."""

    def __init__(self, files: Files, layout: Layout, digests: Mapping[str, Digest]) -> None:
        self._files, self._layout, self._digests = files, layout, digests
        self._checked_metadata = False

    def read_view(self, view_index: int) -> EncodedView:
        """Return one view of every sample; the first call also checks the zarr.json files."""
        if not self._checked_metadata:
            described = [(key, self._digests[key]) for key in self._layout.metadata_keys()]
            for (key, _), problem in zip(described, self._files.problems(described), strict=True):
                if problem is not None:
                    raise damaged(key, problem, self._files.path)
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
        encoded = read_chunks(self._files, self._layout, shards, self._digests)
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
        first = read_chunks(self._files, self._layout, required, self._digests)
        references = {name: first[name] for name in self._layout.folded}
        if whole:
            # Two threads may both read it: the values are the same.
            self._references = references
        return references


class MappedViews(ViewReader):
    """Maps views of profile ``mmap`` copy-on-write: writing to a returned array never changes the cache.

    A view of several files is copied into one array. Objects of a store are read.
    """

    def __init__(self, files: Files, layout: Layout, digests: Mapping[str, Digest]) -> None:
        """Check that each file has the size of a chunk."""
        super().__init__(files, layout, digests)
        expected = [size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()]
        for shard in layout.shards():
            found = [digests[key].size for key in layout.chunk_keys(shard)]
            if found != expected:
                raise damaged(
                    str(shard), f"its files would have {found} bytes instead of {expected}", files.path
                )

    def read(self, shards: Sequence[Shard]) -> EncodedView:
        """Return consecutive shards, mapped or copied."""
        encoded = {}
        for position, field in enumerate(self._layout.manifest.fields):
            wanted = _wanted(self._layout, shards, position, self._digests)
            contents = zip(self._files.mapped(wanted), shards, strict=True)
            parts = [_as_rows(content, field, shard) for content, shard in contents]
            encoded[field.name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return encoded


def encode_shard(
    files: Files,
    layout: Layout,
    shard: Shard,
    fields: Mapping[str, NDArray[Any]],
    digests: Mapping[str, Digest],
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each chunk file of a shard.

    ``fields`` has an array (shard.stop - shard.start, *shape) for each field; ``digests`` has those of the files of the
    shard that ``shard`` requires, if it requires one.
    """
    required = layout.requires(shard)
    references = read_chunks(files, layout, [required], digests) if required else {}
    level = ZSTD_LEVELS.get(layout.manifest.profile)
    for field, key in zip(layout.manifest.fields, layout.chunk_keys(shard), strict=True):
        values = fields[field.name]
        if required and field.name in layout.folded:
            values = fold(values, references[field.name])
        yield key, encode_chunk(values, layout.block, level)


def read_chunks(
    files: Files, layout: Layout, shards: Sequence[Shard], digests: Mapping[str, Digest]
) -> EncodedView:
    """Return each field of consecutive shards of one view, as stored in compressed chunks."""
    first, sizes, specs = shards[0].start, layout.chunk_bytes(), layout.manifest.fields
    shape = (shards[-1].stop - first,)
    encoded = {
        field.name: np.empty(shape + field.shape, np.dtype(field.dtype).newbyteorder("<")) for field in specs
    }
    wanted = [each for place in range(len(specs)) for each in _wanted(layout, shards, place, digests)]

    def decode(number: int, content: bytes) -> None:
        name, shard = specs[number // len(shards)].name, shards[number % len(shards)]
        rows = encoded[name][shard.start - first : shard.stop - first]
        if problem := decode_chunk(content, rows, chunk_bytes=sizes[name]):
            raise damaged(str(shard), problem, files.path)

    if files.mappable and len(shards) * sum(sizes.values()) >= _THREADED_BYTES:
        with ThreadPoolExecutor(_threads()) as pool:
            list(pool.map(lambda number: decode(number, *files.read([wanted[number]])), range(len(wanted))))
    else:
        for number, content in enumerate(files.read(wanted)):
            decode(number, content)
    return {field.name: encoded[field.name].astype(field.dtype, copy=False) for field in specs}


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)


def read_shard(files: Files, layout: Layout, shard: Shard, digests: Mapping[str, Digest]) -> EncodedView:
    """Return the values of a shard that is not stored relative to another one, in any profile."""
    if layout.manifest.profile in ZSTD_LEVELS:
        return read_chunks(files, layout, [shard], digests)
    encoded = {}
    for position, field in enumerate(layout.manifest.fields):
        (content,) = files.read(_wanted(layout, [shard], position, digests))
        encoded[field.name] = _as_rows(content, field, shard).astype(field.dtype, copy=False)
    return encoded


def _wanted(
    layout: Layout, shards: Sequence[Shard], position: int, digests: Mapping[str, Digest]
) -> list[Wanted]:
    """Return the file of one field for each shard."""
    keys = [(layout.chunk_keys(shard)[position], shard) for shard in shards]
    return [Wanted(key, digests[key], shard) for key, shard in keys]


def _as_rows(content: bytes | Memory, field: FieldSpec, shard: Shard) -> NDArray[Any]:
    """Return a shard's rows of one field in a file that is not compressed; the array keeps its memory alive."""
    rows, dtype = shard.stop - shard.start, np.dtype(field.dtype).newbyteorder("<")
    return np.frombuffer(content, dtype, rows * math.prod(field.shape)).reshape(rows, *field.shape)


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
