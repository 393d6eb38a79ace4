"""Where encoded targets lie: shards, and the files that hold them. Frozen: caches on disk depend on it.

Arrays are view-major, ``[view_index, sample, ...]``: what an epoch reads, one view of every sample, is contiguous. A shard
is a block of samples in one view. It has one chunk of each array, and so one file for each array: no file is ever written
twice or by two writers.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bancache.cache.manifest import Manifest
from bancache.cache.profile import MMAP, ZSTD_LEVELS, folded
from bancache.encodings.fields import FieldSpec

# Decoded bytes of a shard: large enough that reading costs its decompression and little else, small enough
# that little is lost with one. A mapped shard is as much of a view as a writer can easily hold in memory.
_SHARD_BYTES = 2 << 20
_MAPPED_BYTES = 64 << 20
# Files of a view beyond which shards are larger: 300 views of ImageNet then are below 30,000. It does not depend on the
# number of views, so caches of fewer and of more views have the same files.
_VIEW_FILES = 99
METADATA = "zarr.json"


@dataclass(frozen=True)
class Shard:
    """A block of samples, ``start`` to ``stop`` - 1, in one view; ``index`` is its position among all shards."""

    index: int
    view_index: int
    block: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"shard {self.index} (view {self.view_index}, samples {self.start} to {self.stop - 1})"


@dataclass(frozen=True)
class Layout:
    """The shards and file names of a cache, a function of its manifest alone."""

    manifest: Manifest

    @property
    def pair_bytes(self) -> list[int]:
        """Decoded bytes of one (sample, view) pair in each field."""
        return [_bytes(field) for field in self.manifest.fields]

    @property
    def block(self) -> int:
        """Samples of a shard; the last one of a view may have fewer."""
        manifest = self.manifest
        return manifest.shard_samples or block_of(manifest.samples, manifest.fields, manifest.profile)

    @property
    def blocks(self) -> int:
        """Shards of a view."""
        return _ceil(self.manifest.samples, self.block)

    @property
    def count(self) -> int:
        """Shards of the cache."""
        return self.blocks * self.manifest.num_views

    def shard(self, index: int) -> Shard:
        """Return the shard at a position: views one after another, blocks in order."""
        view_index, block = divmod(index, self.blocks)
        start = block * self.block
        return Shard(index, view_index, block, start, min(start + self.block, self.manifest.samples))

    def shards(self) -> list[Shard]:
        """Return all shards in order."""
        return [self.shard(index) for index in range(self.count)]

    def shards_of(self, view_index: int) -> list[Shard]:
        """Return the shards of one view in order."""
        return [self.shard(view_index * self.blocks + block) for block in range(self.blocks)]

    @property
    def folded(self) -> tuple[str, ...]:
        """Fields that every view but the first stores relative to view 0: see ``delta_codec.fold``."""
        return folded(self.manifest.profile, self.manifest.fields, self.manifest.classes)

    def requires(self, shard: Shard) -> Shard | None:
        """Return the shard of view 0 that must be recorded before this one is written and read with it, or None."""
        return self.shard(shard.block) if self.folded and shard.view_index else None

    @property
    def separator(self) -> str:
        """What stands between the numbers in a chunk's name: a folder for each of many shards would cost more than the shard."""
        return "/" if self.manifest.shard_samples is None else "."

    def chunk_keys(self, shard: Shard) -> list[str]:
        """Return the file of each field, relative to the cache's directory."""
        place = "c", str(shard.view_index), str(shard.block)
        return [
            f"{field.name}/{self.separator.join([*place, *('0' for _ in field.shape)])}"
            for field in self.manifest.fields
        ]

    def metadata_keys(self) -> list[str]:
        """Return the zarr.json files of the group and its arrays."""
        return [METADATA, *(f"{field.name}/{METADATA}" for field in self.manifest.fields)]

    def chunk_bytes(self) -> dict[str, int]:
        """Return the decoded size of each field's chunks; a chunk at an array's edge is padded to it."""
        sizes = zip(self.manifest.fields, self.pair_bytes, strict=True)
        return {field.name: self.block * size for field, size in sizes}

    def files(self) -> int:
        """Return the number of files of a complete cache beside its manifest, without listing them."""
        return self.count * len(self.manifest.fields) + len(self.metadata_keys())

    def array_settings(self) -> list[dict[str, Any]]:
        """Return name, shape, chunks, dtype and dimension names of each Zarr array."""
        num_views, samples = self.manifest.num_views, self.manifest.samples
        return [
            {
                "name": field.name,
                "shape": (num_views, samples, *field.shape),
                "chunks": (1, self.block, *field.shape),
                "dtype": np.dtype(field.dtype),
                "dimension_names": ("view", "sample", *field.dimensions),
            }
            for field in self.manifest.fields
        ]


def describe_arrays(layout: Layout) -> dict[str, bytes]:
    """Return the zarr.json of each of ``layout.metadata_keys()``: for other programs, bancache never parses one."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = MemoryStore(files)
    # Keys in order: a manifest read back from disk must give the same bytes.
    attributes = json.loads(json.dumps(layout.manifest.to_dict(), sort_keys=True))
    group = zarr.create_group(store, zarr_format=3, attributes={"bancache": attributes})
    # The checksum comes last: it covers the bytes on disk.
    level = ZSTD_LEVELS.get(layout.manifest.profile)
    codecs = (Crc32cCodec(),) if level is None else (ZstdCodec(level=level), Crc32cCodec())
    names: Any = {"name": "default", "separator": layout.separator}
    for settings in layout.array_settings():
        group.create_array(**settings, fill_value=0, compressors=codecs, chunk_key_encoding=names)
    with warnings.catch_warnings():
        # Consolidated metadata spares readers a listing, and xarray a warning; it is not in the v3 specification.
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)
    return {key: files[key].to_bytes() for key in layout.metadata_keys()}


def block_of(samples: int, fields: Sequence[FieldSpec], profile: str) -> int:
    """Return the samples of a shard of a cache with these fields whose manifest does not say it."""
    limit = _MAPPED_BYTES if profile == MMAP else _SHARD_BYTES
    return _ceil(samples, _ceil(samples * sum(map(_bytes, fields)), limit))


def shard_samples_of(samples: int, fields: Sequence[FieldSpec], profile: str) -> int | None:
    """Return the samples of a shard that a new cache's manifest has to say; None for a cache of few or mapped shards."""
    fewest = _ceil(samples * sum(map(_bytes, fields)), _MAPPED_BYTES)
    block = _ceil(samples, max(fewest, _VIEW_FILES // len(fields)))
    return block if block > block_of(samples, fields, profile) else None


def _bytes(field: FieldSpec) -> int:
    """Return the decoded bytes of a pair in one field."""
    return np.dtype(field.dtype).itemsize * math.prod(field.shape)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
