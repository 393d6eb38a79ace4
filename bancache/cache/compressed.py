"""Views of a compressed cache, put together from chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.chunks import Chunk, read_into
from bancache.cache.delta_codec import fold, unfold
from bancache.cache.digests import Digest, require_descriptions
from bancache.cache.layout import Layout, Shard

_EncodedView = dict[str, NDArray[Any]]


class CompressedViews:
    """Reads views; every file of one is checked each time."""

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        """Believe of a cache at ``path`` what ``layout`` and ``files`` say."""
        self._path, self._layout, self._files = path, layout, files
        self._descriptions = layout.metadata_keys()

    def read(self, view_index: int) -> _EncodedView:
        """Return each field of all samples, (samples, *shape), in arrays of the caller's own.

        Raises:
            CacheDamagedError: A file is missing or not as written; the message names its shard.
        """
        require_descriptions(self._path, self._descriptions, self._files)
        first = view_index * self._layout.blocks
        return self._decode([self._layout.shard(first + block) for block in range(self._layout.blocks)])

    def shard(self, shard: Shard) -> _EncodedView:
        """Return each field of a shard's samples, (shard.stop - shard.start, *shape).

        Raises:
            CacheDamagedError: It is missing or not as written.
        """
        return self._decode([shard])

    def _decode(self, shards: Sequence[Shard]) -> _EncodedView:
        return _read(self._path, self._layout, shards, self._files)


class CompactViews(CompressedViews):
    """Unfolds what lies relative to view index 0, whose codes it keeps once any other view index is asked for."""

    _references: _EncodedView | None = None

    def read(self, view_index: int) -> _EncodedView:
        """Return the codes as they were before they were folded; everything else as ``CompressedSlots`` does.

        Raises:
            CacheDamagedError: As there; a shard of view index 0 that is damaged is named for every view index.
        """
        references = self._refer() if view_index else {}
        encoded = super().read(view_index)
        for name, reference in references.items():
            # By shards, as it was folded; what that takes besides is a few times a shard, not a slab.
            for start in range(0, len(reference), self._layout.block):
                rows = slice(start, start + self._layout.block)
                encoded[name][rows] = unfold(encoded[name][rows], reference[rows])
        return encoded

    def shard(self, shard: Shard) -> _EncodedView:
        """Return a shard as it was before it was folded; what it is stored relative to is read with it.

        Raises:
            CacheDamagedError: Either of them is missing or not as written.
        """
        encoded = super().shard(shard)
        if shard.view_index:
            first = super().shard(self._layout.shard(shard.block))
            encoded |= {name: unfold(encoded[name], first[name]) for name in self._layout.folded}
        return encoded

    def _refer(self) -> _EncodedView:
        # Two threads that ask at once both read it, to the same end.
        if self._references is None:
            first = super().read(0)
            self._references = {name: first[name] for name in self._layout.folded}
        return self._references


def fold_shard(
    path: Path,
    layout: Layout,
    shard: Shard,
    fields: Mapping[str, NDArray[Any]],
    files: Mapping[str, Digest],
) -> Mapping[str, NDArray[Any]]:
    """Return a shard's fields as they are stored.

    Args:
        path: The store's directory.
        layout: Of the cache.
        shard: Which.
        fields: For each field, an array (shard.stop - shard.start, *shape) of its dtype.
        files: Digests of the files of the shard that this one requires, if it requires any.

    Raises:
        CacheDamagedError: The shard that it requires is not as written.
    """
    required = layout.requires(shard)
    if required is None:
        return fields
    reference = _read(path, layout, [required], files)
    return {**fields, **{name: fold(fields[name], reference[name]) for name in layout.folded}}


def _read(path: Path, layout: Layout, shards: Sequence[Shard], files: Mapping[str, Digest]) -> _EncodedView:
    """Return each field of shards of one view index that follow one another."""
    start, stop = shards[0].start, shards[-1].stop
    decoded, encoded = layout.chunk_bytes(), {}
    for place, field in enumerate(layout.manifest.fields):
        dtype = np.dtype(field.dtype)
        values = np.empty((stop - start, *field.shape), dtype.newbyteorder("<"))
        for shard in shards:
            key = layout.chunk_keys(shard)[place]
            chunk = Chunk(key, files[key], decoded[field.name], str(shard))
            read_into(path, chunk, values[shard.start - start : shard.stop - start])
        encoded[field.name] = values.astype(dtype, copy=False)
    return encoded
