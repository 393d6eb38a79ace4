"""Caches that lie: sealed like any other, with entries that their teacher never gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bancache.cache.opening import open_writer
from bancache.cache.reader import EncodedView, open_cache
from bancache.cache.verify import verify_cache

EncodedViews = list[EncodedView]


def forge(source: Path, out: Path, change: Callable[[EncodedViews], EncodedViews]) -> Path:
    """Write a cache with the promise and the summary of another, and other entries: all its digests hold."""
    cache = open_cache(source)
    encoded_views = change([cache.read_view(view_index) for view_index in range(cache.manifest.num_views)])
    with open_writer(out, cache.manifest) as writer:
        assert writer is not None
        for shard in writer.pending():
            rows = {n: v[shard.start : shard.stop] for n, v in encoded_views[shard.view_index].items()}
            writer.write_shard(shard, rows, {})
        writer.finish(lambda _: cache.summary)
    assert verify_cache(out) == []
    return out
