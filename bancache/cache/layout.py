"""Where an entry lies: regions, the unit that is written, recorded and lost, and the files they become.

Arrays are view-major, ``[slot, sample, ...]``: what an epoch reads is one contiguous slab. A region is a
block of samples in one slot, one chunk of each array, and so one file for each array: no file is ever
written twice or by two writers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bancache.cache.manifest import Manifest

# Decoded bytes of a region: enough that reading one costs its decompression and little else, small enough
# that little is lost with it.
_REGION_BYTES = 2 << 20
METADATA = "zarr.json"


@dataclass(frozen=True)
class Region:
    """A block of samples in one slot.

    Attributes:
        index: Position among all regions of the cache.
        slot: Which slot.
        block: Which block of samples.
        start: First sample.
        stop: One past the last sample.
    """

    index: int
    slot: int
    block: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"region {self.index} (slot {self.slot}, samples {self.start} to {self.stop - 1})"


@dataclass(frozen=True)
class Layout:
    """The regions and file names of a cache, a function of its manifest alone."""

    manifest: Manifest

    @property
    def entry_bytes(self) -> list[int]:
        """How many bytes an entry has in each field, decoded."""
        return [np.dtype(f.dtype).itemsize * math.prod(f.shape) for f in self.manifest.fields]

    @property
    def block(self) -> int:
        """How many samples a region has; blocks of a slot differ by less than their number."""
        samples = self.manifest.samples
        return _ceil(samples, _ceil(samples * sum(self.entry_bytes), _REGION_BYTES))

    @property
    def blocks(self) -> int:
        """How many regions a slot has."""
        return _ceil(self.manifest.samples, self.block)

    @property
    def count(self) -> int:
        """How many regions the cache has."""
        return self.blocks * self.manifest.slots

    def region(self, index: int) -> Region:
        """Return the region at a position: slots one after another, blocks in order."""
        slot, block = divmod(index, self.blocks)
        start = block * self.block
        return Region(index, slot, block, start, min(start + self.block, self.manifest.samples))

    def regions(self) -> list[Region]:
        """Return all of them."""
        return [self.region(index) for index in range(self.count)]

    def requires(self, region: Region) -> tuple[int, ...]:
        """Return the regions that must be recorded before this one can be made; each has a smaller index."""
        return ()

    def chunk_keys(self, region: Region) -> list[str]:
        """Return the file of each field, relative to the store."""
        return [
            "/".join([f.name, "c", str(region.slot), str(region.block), *("0" for _ in f.shape)])
            for f in self.manifest.fields
        ]

    def metadata_keys(self) -> list[str]:
        """Return the files that describe the group and its arrays."""
        return [METADATA, *(f"{field.name}/{METADATA}" for field in self.manifest.fields)]

    def chunk_bytes(self) -> dict[str, int]:
        """Return the decoded size of each field's chunks; one at an array's edge is filled up to it."""
        sizes = zip(self.manifest.fields, self.entry_bytes, strict=True)
        return {field.name: self.block * size for field, size in sizes}

    def files(self) -> int:
        """Return how many files a complete cache has beside its manifest, without listing them."""
        return self.count * len(self.manifest.fields) + len(self.metadata_keys())

    def array_settings(self) -> list[dict[str, Any]]:
        """Return name, shape, chunks, dtype and dimension names of each array."""
        slots, samples = self.manifest.slots, self.manifest.samples
        return [
            {
                "name": field.name,
                "shape": (slots, samples, *field.shape),
                "chunks": (1, self.block, *field.shape),
                "dtype": np.dtype(field.dtype),
                "dimension_names": ("view", "sample", *field.dimensions),
            }
            for field in self.manifest.fields
        ]


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
