"""Prune a complete cache into a new one that keeps its first views; no teacher is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bancache.cache.import_shards import import_shards, require_other, shards_of
from bancache.cache.layout import Layout
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.recompute import with_num_views
from bancache.dumping.summary import empty_facts, shard_facts, summarize_shards
from bancache.errors import UsageError
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress


def prune(
    path: str | os.PathLike[str],
    data: ImageSet,
    num_views: int,
    *,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Cache:
    """Write a cache with the first ``num_views`` views of the cache at ``path`` to ``out``.

    It is byte-identical to a fresh dump of that many views. A cache of an earlier version may have no sums of its
    views; then the summary of the new cache is that of the old one, under ``parent``.

    Args:
        path: A complete cache; it is not changed.
        data: The cache's images; a few are rendered for the new manifest.
        num_views: Views to keep, from view index 0 on.
        out: Directory of the new cache; it shares files with the old one by hard links where possible.
        progress: Shows every shard.

    Raises:
        CacheDamagedError: The cache is incomplete, or a shard to keep is damaged.
        MismatchError: The images are not those of the cache.
        UsageError: More views than in the cache.
        StorageError: The disk is full, read-only or failing.
    """
    path = Path(path)
    require_other(out, [path])
    cache = open_cache(path)
    if not 1 <= num_views <= cache.manifest.num_views:
        raise UsageError(
            f"{path} has {cache.manifest.num_views} views, so it cannot keep {num_views}",
            hint=f"add views with `bancache extend {path} --num-views {num_views}`",
        )
    cache.require_dataset(data.fingerprint)
    facts, count = shard_facts(cache), Layout(cache.manifest).blocks * num_views
    kept = {index: facts[index] if facts else empty_facts() for index in range(count)}

    def summarize(kept: list[dict[str, Any]]) -> dict[str, Any]:
        if facts:
            return summarize_shards(kept, num_views)
        parent = {"digest": cache.digest, "slots": cache.manifest.num_views, "summary": cache.summary}
        return {"parent": parent}

    manifest = with_num_views(cache.manifest, num_views, data)
    import_shards(out, manifest, shards_of(cache, kept), summarize=summarize, progress=progress)
    return open_cache(Path(out))
