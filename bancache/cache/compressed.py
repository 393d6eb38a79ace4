"""Slots of a compressed cache, decoded by Zarr from bytes that were checked before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.compact import fold, unfold
from bancache.cache.layout import Layout, Region
from bancache.cache.store import Chunk, Digest, VerifiedStore, require_descriptions

_Slab = dict[str, NDArray[Any]]


class CompressedSlots:
    """Reads slots; every file of one is checked each time."""

    def __init__(
        self, path: Path, layout: Layout, described: Mapping[str, bytes], files: Mapping[str, Digest]
    ) -> None:
        """Believe of a cache at ``path`` what ``described`` and ``files`` say."""
        self._path, self._layout, self._files = path, layout, files
        self._descriptions = layout.metadata_keys()
        self.store = VerifiedStore(path, described, known_chunks(layout, layout.regions(), files))

    def read(self, slot: int) -> _Slab:
        """Return each field of all samples, (samples, *shape), in arrays of the caller's own.

        Raises:
            CacheDamagedError: A file is missing or not as written; the message names its region.
        """
        require_descriptions(self._path, self._descriptions, self._files)
        everyone = slice(0, self._layout.manifest.samples)
        return self._decode(slot, everyone)

    def region(self, region: Region) -> _Slab:
        """Return each field of a region's samples, (region.stop - region.start, *shape).

        Raises:
            CacheDamagedError: It is missing or not as written.
        """
        return self._decode(region.slot, slice(region.start, region.stop))

    def _decode(self, slot: int, samples: slice) -> _Slab:
        return _read(self.store, [field.name for field in self._layout.manifest.fields], slot, samples)


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
            first = _read(self.store, self._layout.folded, 0, slice(region.start, region.stop))
            slab |= {name: unfold(slab[name], codes) for name, codes in first.items()}
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
    described: Mapping[str, bytes],
    region: Region,
    fields: Mapping[str, NDArray[Any]],
    files: Mapping[str, Digest],
) -> Mapping[str, NDArray[Any]]:
    """Return a region's fields as they are stored.

    Args:
        path: The store's directory.
        layout: Of the cache.
        described: The metadata to believe.
        region: Which.
        fields: For each field, an array (region.stop - region.start, *shape) of its dtype.
        files: Digests of the files of the region that this one requires, if it requires any.

    Raises:
        CacheDamagedError: The region that it requires is not as written.
    """
    required = layout.requires(region)
    if required is None:
        return fields
    store = VerifiedStore(path, described, known_chunks(layout, [required], files))
    reference = _read(store, layout.folded, required.slot, slice(required.start, required.stop))
    return {**fields, **{name: fold(fields[name], codes) for name, codes in reference.items()}}


def known_chunks(layout: Layout, regions: Iterable[Region], files: Mapping[str, Digest]) -> dict[str, Chunk]:
    """Return what is known of the chunks of some regions, by their files."""
    decoded = layout.chunk_bytes()
    return {
        key: Chunk(files[key], decoded[field.name], str(region))
        for region in regions
        for field, key in zip(layout.manifest.fields, layout.chunk_keys(region), strict=True)
    }


def _read(store: VerifiedStore, names: Iterable[str], slot: int, samples: slice) -> _Slab:
    import zarr

    arrays: dict[str, Any] = {n: zarr.open_array(store, path=n, mode="r", zarr_format=3) for n in names}
    return {name: np.asarray(array[slot : slot + 1, samples])[0] for name, array in arrays.items()}
