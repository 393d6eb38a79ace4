"""Find damage that no digest shows, and repair a cache: run the teacher again for the damaged shards.

On the machine and with the libraries of the dump, the new files are byte-identical to the lost ones. If they are not,
the repair is refused: the cache would no longer be the one that its digest names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch

from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import Finding, verify_cache
from bancache.dumping.recompute import forward_of, require_same_teacher
from bancache.dumping.summary import summarize_views, view_facts
from bancache.encodings import from_config
from bancache.encodings.validity import describe_invalid_rows
from bancache.errors import CacheDamagedError, UsageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt


@dataclass(frozen=True)
class Repaired:
    """A finished repair: the findings before it, and the number of shards that were computed again."""

    found: list[Finding]
    shards: int


def repair(
    path: str | os.PathLike[str],
    teacher: Teacher,
    data: ImageSet,
    *,
    device: torch.device,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Repaired:
    """Restore a cache's damaged files, so that every digest of its manifest matches.

    Raises:
        CacheDamagedError: The manifest itself is damaged.
        MismatchError: The teacher or the data set is not that of the cache, or a new file differs from the lost one.
        StoppedError: ``interrupt`` was set; repaired shards stay.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    cache = open_cache(path)
    require_same_teacher(cache.manifest, teacher, data)
    findings = verify_cache(path, progress=progress)
    damaged = sorted({f.shard.index for f in findings if f.shard is not None})
    forward = forward_of(cache.manifest, teacher, data, device)
    with open_repairer(path) as repairer:
        repairer.restore_descriptions()
        shards = [repairer.layout.shard(index) for index in damaged]
        total = sum(shard.stop - shard.start for shard in shards)
        with progress.stage("repair", total=total, unit="images") as stage:
            for done, shard in enumerate(shards):
                interrupt.check(f"{done} of {len(shards)} damaged shards are repaired")
                fields, _ = forward.start(shard, stage.advance)()
                repairer.rewrite(shard, fields)
    return Repaired(findings, len(shards))


def verify_deeply(path: str | os.PathLike[str], *, progress: Progress | None = None) -> list[Finding]:
    """Do the checks of ``verify_cache``, decode every shard, check every value, and recompute the summary.

    This finds errors that were made before the digests: rows that were never written, values that are not finite or
    not possible in the encoding, broken compression frames, and wrong figures in the summary.
    """
    cache = open_cache(path)
    manifest = cache.manifest
    config = manifest.encoding
    try:
        from_config(config, manifest.classes, manifest.fields)
    except UsageError:
        config = {}  # of a newer version: its rows cannot be judged
    inspect = partial(describe_invalid_rows, config, manifest.classes)
    findings = verify_cache(path, inspect=inspect, progress=progress)
    if problem := _summary_problem(cache):
        findings.append(Finding(MANIFEST, None, problem))
    return findings


def _summary_problem(cache: Cache) -> str | None:
    """Return what in the summary differs from the sums of its views, or None; older caches have no sums."""
    manifest, summary = cache.manifest, cache.summary
    num_pairs = manifest.samples * manifest.num_views
    values = num_pairs * manifest.classes
    if summary.get("finite_values", values) != values:
        return f"the summary counts {summary['finite_values']} finite values of {values}"
    try:
        views = view_facts(summary)
        if views is None:
            return None
        expected = summarize_views(views)
    except CacheDamagedError as error:
        return f"the summary makes no sense: {error}"
    counted = sum(part["entries"] for view in views if (part := view["tally"].get("1")))
    if len(views) != manifest.num_views or counted != num_pairs:
        return f"the summary counts {counted} pairs in {len(views)} views"
    wrong = sorted(key for key, value in expected.items() if summary.get(key) != value)
    return f"'{wrong[0]}' in the summary differs from the sums of its views" if wrong else None
