"""Extend a complete cache into a new one with more views: the teacher runs on the new views only.

The view of a sample at a view index does not depend on the number of views, so the new cache begins with the files
of the old one. It is byte-identical to a fresh dump of all views.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from bancache.cache.import_shards import import_shards, require_other, shards_of
from bancache.cache.reader import open_cache
from bancache.dumping.recompute import is_reproducible, require_same_inputs, settings_of, with_num_views
from bancache.dumping.run import DumpResult, dump
from bancache.dumping.summary import shard_facts
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import Interrupt
from bancache.system.progress import Progress, Silent


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

    Killed at any instant, the same call continues. Arguments and errors are as in ``dump``; also:

    Args:
        path: A complete cache; it is not changed.
        teacher: The cache's teacher.
        data: The cache's images.
        num_views: Total number of views, at least as many as at ``path``.
        out: Directory of the new cache; it shares files with the old one by hard links where possible.
        device: Device of the teacher.
        progress: Shows every batch.
        interrupt: Checked between shards.

    Raises:
        CacheDamagedError: The cache is incomplete, or one of its shards is damaged.
        MismatchError: The teacher, data set, precision or rendering is not that of the cache.
        UsageError: Fewer views than in the cache, or the cache has no sums of its views.
    """
    path, progress = Path(path), progress or Silent()
    require_other(out, [path])
    cache = open_cache(path)
    if num_views < cache.manifest.num_views:
        raise UsageError(
            f"{path} has {cache.manifest.num_views} views, more than {num_views}",
            hint=f"keep fewer views with `bancache prune {path} --num-views {num_views}`",
        )
    settings = replace(settings_of(cache.manifest), num_views=num_views)
    facts = shard_facts(cache)
    if facts is None:
        raise UsageError(
            f"{path} has no sums of its views, so the fidelity of a larger cache would be unknown",
            hint="an earlier version made it, or it has very many views: use `bancache dump --num-views`",
        )
    require_same_inputs(cache, teacher, data)
    if not is_reproducible(cache, teacher, data, device):
        progress.note(
            f"note: the teacher's logits differ from those in {path} in the last bits on this machine"
        )
    manifest = with_num_views(cache.manifest, num_views, data)
    import_shards(out, manifest, shards_of(cache, facts), progress=progress)
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"])
    return dump(teacher, data, spec, out, settings, device=device, progress=progress, interrupt=interrupt)
