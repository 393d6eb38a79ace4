"""Slots of a compressed cache, put together from chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.chunks import Chunk, read_into
from bancache.cache.delta_codec import fold, unfold
from bancache.cache.digests import Digest, require_descriptions
from bancache.cache.layout import Layout, Region

_Slab = dict[str, NDArray[Any]]


class CompressedSlots:
    """Reads slots; every file of one is checked each time."""

    def __init__(self, path: Path, layout: Layout, files: Mapping[str, Digest]) -> None:
        """Believe of a cache at ``path`` what ``layout`` and ``files`` say."""
        self._path, self._layout, self._files = path, layout, files
        self._descriptions = layout.metadata_keys()

    def read(self, slot: int) -> _Slab:
        """Return each field of all samples, (samples, *shape), in arrays of the caller's own.

        Raises:
            CacheDamagedError: A file is missing or not as written; the message names its region.
        """
        require_descriptions(self._path, self._descriptions, self._files)
        first = slot * self._layout.blocks
        return self._decode([self._layout.region(first + block) for block in range(self._layout.blocks)])

    def region(self, region: Region) -> _Slab:
        """Return each field of a region's samples, (region.stop - region.start, *shape).

        Raises:
            CacheDamagedError: It is missing or not as written.
        """
        return self._decode([region])

    def _decode(self, regions: Sequence[Region]) -> _Slab:
        return _read(self._path, self._layout, regions, self._files)


class CompactSlots(CompressedSlots):
    """Unfolds what lies relative to slot 0, whose codes it keeps once any other slot is asked for."""

    _references: _Slab | None = None

    def read(self, slot: int) -> _Slab:
        """Return the codes as they were before they were folded; everything else as ``CompressedSlots`` does.

        Raises:
            CacheDamagedError: As there; a region of slot 0 that is damaged is named for every slot.
        """
        references = self._refer() if slot else {}
        slab = super().read(slot)
        for name, reference in references.items():
            # By regions, as it was folded; what that takes besides is a few times a region, not a slab.
            for start in range(0, len(reference), self._layout.block):
                rows = slice(start, start + self._layout.block)
                slab[name][rows] = unfold(slab[name][rows], reference[rows])
        return slab

    def region(self, region: Region) -> _Slab:
        """Return a region as it was before it was folded; what it is stored relative to is read with it.

        Raises:
            CacheDamagedError: Either of them is missing or not as written.
        """
        slab = super().region(region)
        if region.slot:
            first = super().region(self._layout.region(region.block))
            slab |= {name: unfold(slab[name], first[name]) for name in self._layout.folded}
        return slab

    def _refer(self) -> _Slab:
        # Two threads that ask at once both read it, to the same end.
        if self._references is None:
            first = super().read(0)
            self._references = {name: first[name] for name in self._layout.folded}
        return self._references


def fold_region(
    path: Path,
    layout: Layout,
    region: Region,
    fields: Mapping[str, NDArray[Any]],
    files: Mapping[str, Digest],
) -> Mapping[str, NDArray[Any]]:
    """Return a region's fields as they are stored.

    Args:
        path: The store's directory.
        layout: Of the cache.
        region: Which.
        fields: For each field, an array (region.stop - region.start, *shape) of its dtype.
        files: Digests of the files of the region that this one requires, if it requires any.

    Raises:
        CacheDamagedError: The region that it requires is not as written.
    """
    required = layout.requires(region)
    if required is None:
        return fields
    reference = _read(path, layout, [required], files)
    return {**fields, **{name: fold(fields[name], reference[name]) for name in layout.folded}}


def _read(path: Path, layout: Layout, regions: Sequence[Region], files: Mapping[str, Digest]) -> _Slab:
    """Return each field of regions of one slot that follow one another."""
    start, stop = regions[0].start, regions[-1].stop
    decoded, slab = layout.chunk_bytes(), {}
    for place, field in enumerate(layout.manifest.fields):
        dtype = np.dtype(field.dtype)
        values = np.empty((stop - start, *field.shape), dtype.newbyteorder("<"))
        for region in regions:
            key = layout.chunk_keys(region)[place]
            chunk = Chunk(key, files[key], decoded[field.name], str(region))
            read_into(path, chunk, values[region.start - start : region.stop - start])
        slab[field.name] = values.astype(dtype, copy=False)
    return slab
