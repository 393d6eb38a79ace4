"""More views for a finished cache: its views stay as they are, the teacher is asked for the new ones only.

Which view a sample shows in a view index does not depend on how many views there are, so a larger cache begins with the
smaller one's files. The result is, byte for byte, what one dump of all views would have been.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bancache.cache.import_shards import import_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.reader import Cache, open_cache
from bancache.cache.replace import beside, exchange, recover
from bancache.dumping.recompute import answers_alike, require_same_question, settings_of, with_num_views
from bancache.dumping.run import DumpResult, dump
from bancache.dumping.summary import OF_FIRST, Facts, nothing, views_of
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import Interrupt
from bancache.system.files import make_directory
from bancache.system.locks import exclusive_file
from bancache.system.progress import Progress, Silent


def extend(
    path: Path,
    teacher: Teacher,
    data: ImageSet,
    num_views: int,
    *,
    device: torch.device,
    out: Path | None = None,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> DumpResult:
    """Make a cache of ``num_views`` views out of one of fewer; go on with what is there already.

    Args:
        path: A complete cache.
        teacher: The one that it was made from.
        data: The images that it was made for.
        num_views: How many views in all.
        device: Where the teacher runs.
        out: Where the larger cache goes; by default beside the old one, whose place it takes when it is complete.
        progress: Is told of every batch.
        interrupt: Asked between shards.

    Raises:
        CacheDamagedError: The cache is incomplete, or a shard that is taken over is not as it was written.
        MismatchError: Another teacher, data set, precision, or rendering.
        UsageError: Fewer views than there are, or a cache that does not keep the sums of its views.
        BusyError: Another process is extending it.
        StorageError: The disk is full, read-only or failing; what is done stays.
        StoppedError: A stop was asked for; what is done stays.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    target = out or beside(path)
    make_directory(target.parent)
    if out is None:
        recover(path)
    with exclusive_file(target):
        cache = open_cache(path)
        if out is None and cache.manifest.num_views == num_views:
            progress.note(f"{path} has {num_views} views already")
            return DumpResult(cache, 0.0, 0)
        settings = settings_of(cache.manifest, num_views=num_views)
        facts = _facts(cache, num_views)
        require_same_question(cache, teacher, data)
        if not answers_alike(cache, teacher, data, device):
            progress.note(
                f"note: here the teacher answers with other last bits than in {path}; the new views will have these"
            )
        promise = with_num_views(cache.manifest, num_views, data)
        import_shards(target, promise, shards_of(cache, facts), progress=progress)
        spec = DataSpec.from_dict(cache.manifest.dataset["spec"])
        done = dump(
            teacher, data, spec, target, settings, device=device, progress=progress, interrupt=interrupt
        )
        if out is not None:
            return done
        exchange(path, cache.digest)
    return DumpResult(open_cache(path), done.seconds, done.entries)


def _facts(cache: Cache, num_views: int) -> dict[int, Facts]:
    """Return what the records of a cache's shards would say."""
    if num_views < cache.manifest.num_views:
        raise UsageError(
            f"{cache.path} has {cache.manifest.num_views} views, more than {num_views}",
            hint=f"bancache prune {cache.path} --num-views {num_views} makes it smaller",
        )
    facts = shard_facts(cache)
    if facts is None:
        raise UsageError(
            f"{cache.path} does not keep the sums of its views, so the fidelity of a larger one cannot be stated",
            hint="it is of an earlier version or has very many views: dump again with more --num-views",
        )
    return facts


def shard_facts(cache: Cache, num_views: int | None = None) -> dict[int, Facts] | None:
    """Return facts for the shards of the first views that add up to those of each view index; None where none are kept.

    The manifest keeps sums of whole views: a view index's first shard stands for all, the others add nothing.
    """
    each, blocks = views_of(cache.summary), Layout(cache.manifest).blocks
    if each is None:
        return None
    kept = each[: num_views or cache.manifest.num_views]
    kept[0] |= {key: cache.summary[key] for key in OF_FIRST if key in cache.summary}
    return {
        view_index * blocks + block: one if block == 0 else nothing()
        for view_index, one in enumerate(kept)
        for block in range(blocks)
    }
