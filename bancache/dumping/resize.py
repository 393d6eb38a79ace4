"""Make a new cache with more or fewer views from a complete one; the teacher runs on new views only.

The view of a sample at a view index does not depend on the number of views, so both caches have the same files
for their common views, and the new one is byte-identical to a fresh dump.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bancache.cache.import_shards import import_shards, require_resizable, shards_of
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.recompute import compute_of, golden_of, require_same_inputs, settings_of
from bancache.dumping.run import DumpResult, dump
from bancache.dumping.summary import empty_facts, shard_facts, summarize_shards
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt


def extend(
    path: str | os.PathLike[str],
    teacher: Teacher,
    data: ImageSet,
    num_views: int,
    *,
    out: str | os.PathLike[str],
    device: torch.device,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> DumpResult:
    """Write a cache of ``num_views`` views to ``out``, beginning with the views of the cache at ``path``.

    Killed at any instant, the same call continues. The caches share files by hard links where possible.

    Also raises what ``dump`` raises.

    Raises:
        CacheDamagedError: The cache is incomplete, or one of its shards is damaged.
        MismatchError: The teacher, data set, precision, rendering or kind of device is not that of the cache.
        UsageError: Fewer views than in the cache, or the cache has no sums of its views.
    """
    path, progress = Path(path), progress or Silent()
    cache = open_cache(path)
    require_resizable(path, cache.manifest, num_views, out, larger=True)
    settings = replace(settings_of(cache.manifest), num_views=num_views)
    facts = shard_facts(cache)
    if facts is None:
        raise UsageError(
            f"{path} has no sums of its views, so the fidelity of a larger cache would be unknown",
            hint="an earlier version made it, or it has very many views: use `bancache dump` with --num-views",
        )
    require_same_inputs(cache, teacher, data)
    here = replace(cache.manifest, compute=compute_of(teacher, settings, device))
    cache.manifest.require_same_device(here)
    manifest = _with_num_views(cache.manifest, num_views, data)
    import_shards(out, manifest, shards_of(cache, facts), progress=progress)
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"])
    return dump(teacher, data, spec, out, settings, device=device, progress=progress, interrupt=interrupt)


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
    The caches share files by hard links where possible.

    Raises:
        CacheDamagedError: The cache is incomplete, or a shard to keep is damaged.
        MismatchError: The images are not those of the cache.
        UsageError: More views than in the cache.
    """
    path = Path(path)
    cache = open_cache(path)
    require_resizable(path, cache.manifest, num_views, out, larger=False)
    cache.require_dataset(data.fingerprint)
    facts, shards = shard_facts(cache), Layout(cache.manifest).blocks * num_views
    kept = {index: facts[index] if facts else empty_facts() for index in range(shards)}

    def summarize(kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if facts:
            return summarize_shards(kept, num_views)
        parent = {"digest": cache.digest, "slots": cache.manifest.num_views, "summary": cache.summary}
        return {"parent": parent}

    manifest = _with_num_views(cache.manifest, num_views, data)
    import_shards(out, manifest, shards_of(cache, kept), summarize=summarize, progress=progress)
    return open_cache(Path(out))


def _with_num_views(manifest: Manifest, num_views: int, data: ImageSet) -> Manifest:
    """Return the manifest of the same cache with another number of views."""
    pixels = {**manifest.pixels, "golden": golden_of(manifest, data, num_views)}
    return replace(manifest, num_views=num_views, pixels=pixels)
