"""Repair a cache: run the teacher again for the damaged shards, and write them anew.

On the machine and with the libraries of the dump, the new files are byte-identical to the lost ones. If they are not,
the repair is refused: the cache would no longer be the one that its digest names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import Finding, verify_cache
from bancache.dumping.recompute import forward_of, require_same_teacher
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.device import Interrupt
from bancache.system.progress import Progress, Silent


@dataclass(frozen=True)
class Repaired:
    """A finished repair.

    Attributes:
        found: The findings before the repair.
        shards: Number of shards that were computed again.
    """

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

    Args:
        path: A cache with an intact manifest.
        teacher: The cache's teacher.
        data: The cache's images.
        device: Device of the teacher.
        progress: Shows every batch.
        interrupt: Checked between shards.

    Raises:
        CacheDamagedError: The manifest itself is damaged.
        MismatchError: The teacher or the data set is not that of the cache, or a new file differs from the lost one.
        StorageError: The disk is full, read-only or failing.
        StoppedError: ``interrupt`` was set; repaired shards stay.
    """
    path, progress, interrupt = Path(path), progress or Silent(), interrupt or Interrupt()
    cache = open_cache(path)
    require_same_teacher(cache, teacher, data)
    findings = verify_cache(path, progress=progress)
    damaged = sorted({f.shard.index for f in findings if f.shard is not None})
    forward = forward_of(cache.manifest, teacher, data, device)
    with open_repairer(path) as repairer:
        repairer.restore_descriptions()
        repairer.remove([f.file for f in findings if f.file not in cache.digests])
        shards = [repairer.layout.shard(index) for index in damaged]
        total = sum(shard.stop - shard.start for shard in shards)
        with progress.stage("repair", total=total, unit="images") as stage:
            for done, shard in enumerate(shards):
                interrupt.check(f"{done} of {len(shards)} damaged shards are repaired")
                fields, _ = forward.start(shard, stage.advance).collect()
                repairer.rewrite(shard, fields)
    return Repaired(findings, len(shards))
