"""Fewer views of a finished cache: its first views, with what is true of them; no teacher is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bancache.cache.import_shards import ImportedShard, import_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.cache.replace import beside, exchange, recover
from bancache.cache.verify import verify_cache
from bancache.dumping.extend import shard_facts
from bancache.dumping.recompute import with_num_views
from bancache.dumping.summary import nothing, summarize_entries
from bancache.errors import CacheDamagedError, UsageError
from bancache.sources.base import ImageSet
from bancache.system.files import make_directory
from bancache.system.locks import exclusive_file
from bancache.system.progress import Progress, Silent


def prune(
    path: Path,
    num_views: int,
    data: ImageSet,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Cache:
    """Keep the first ``num_views`` views of a cache.

    Where the cache keeps the sums of its views, the smaller one is, byte for byte, what a dump of that many views
    would have been. A cache of an earlier version does not; the smaller one then states no fidelity of its own, but
    names the cache it was taken from and what was said of that one, under ``parent``.

    Args:
        path: A complete cache.
        num_views: How many views to keep, from view index 0 on.
        data: The images that the cache was made for; a few are rendered, for later renderings to be held to.
        out: Where the smaller cache goes; by default beside the old one, whose place it takes once it is verified.
        progress: Is told of every shard.

    Raises:
        CacheDamagedError: The cache is incomplete, or a shard that is kept is not as it was written.
        MismatchError: The images are others.
        UsageError: More views than there are.
        StorageError: The disk is full, read-only or failing.
    """
    progress = progress or Silent()
    target = out or beside(path)
    make_directory(target.parent)
    if out is None:
        recover(path)
    with exclusive_file(target):
        cache = open_cache(path)
        if out is None and cache.manifest.num_views == num_views:
            progress.note(f"{path} has {num_views} views already")
            return cache
        if not 1 <= num_views <= cache.manifest.num_views:
            raise UsageError(
                f"{path} has {cache.manifest.num_views} views, so it cannot keep {num_views}",
                hint=f"bancache extend {path} --num-views N adds views",
            )
        _shrink(cache, num_views, target, data, progress)
        if out is not None:
            return open_cache(out)
        if findings := verify_cache(target, progress=progress):
            raise CacheDamagedError(
                f"{target}: {findings[0]}; {path} is left as it is", hint=f"remove {target} and try again"
            )
        exchange(path, cache.digest)
    return open_cache(path)


def _shrink(cache: Cache, num_views: int, target: Path, data: ImageSet, progress: Progress) -> None:
    cache.require_dataset(data.fingerprint)
    promise = with_num_views(cache.manifest, num_views, data)
    import_shards(target, promise, _pieces(cache, num_views), progress=progress)
    with open_writer(target, promise) as writer:
        if writer is not None:
            writer.finish(lambda facts: _summary(cache, facts, num_views))


def _pieces(cache: Cache, num_views: int) -> dict[int, ImportedShard]:
    count = Layout(cache.manifest).blocks * num_views
    return shards_of(cache, shard_facts(cache, num_views) or {index: nothing() for index in range(count)})


def _summary(cache: Cache, facts: list[dict[str, Any]], num_views: int) -> dict[str, Any]:
    if "slots" in cache.summary:
        return summarize_entries(facts, num_views)
    return {
        "parent": {"digest": cache.digest, "slots": cache.manifest.num_views, "summary": cache.summary},
    }
