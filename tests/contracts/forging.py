"""Caches that lie: sealed like any other, with entries that their teacher never gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bancache.cache.opening import open_writer
from bancache.cache.reader import Slab, open_cache
from bancache.cache.verify import verify_cache

Slabs = list[Slab]


def forge(source: Path, out: Path, change: Callable[[Slabs], Slabs]) -> Path:
    """Write a cache with the promise and the summary of another, and other entries: all its digests hold."""
    cache = open_cache(source)
    slabs = change([cache.slab(slot) for slot in range(cache.manifest.slots)])
    with open_writer(out, cache.manifest) as writer:
        assert writer is not None
        for region in writer.pending():
            rows = {n: v[region.start : region.stop] for n, v in slabs[region.slot].items()}
            writer.write_region(region, rows, {})
        writer.finish(lambda _: cache.summary)
    assert verify_cache(out) == []
    return out
