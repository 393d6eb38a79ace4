"""Making damaged shards of a cache anew, and nothing else.

The teacher is asked again for exactly the damaged shards. Where it answers with the same bytes, which it does
on the machine and libraries of the dump, the manifest stays as it is; otherwise the repair is refused, since
a cache half of which answers differently is not the one its digest names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import Finding, verify_cache
from bancache.dumping.forward import TeacherForward
from bancache.dumping.recompute import require_teacher, settings_of
from bancache.encodings import from_config
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.system.device import Interrupt
from bancache.system.progress import Progress, Silent
from bancache.views.renderer import Renderer


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        found: What was wrong before.
        shards: How many shards the teacher was asked for again.
    """

    found: list[Finding]
    shards: int


def repair(
    path: Path,
    teacher: Teacher,
    data: ImageSet,
    *,
    device: torch.device,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Repaired:
    """Write a cache's damaged files again, so that every digest of its manifest holds.

    Args:
        path: A cache whose manifest is sound.
        teacher: The one that the cache was made from.
        data: The images that it was made for.
        device: Where the teacher runs.
        progress: Is told of every batch.
        interrupt: Asked between shards.

    Raises:
        CacheDamagedError: The manifest itself is damaged.
        MismatchError: Another teacher or data set; or the teacher answers with other bytes than at the dump.
        StorageError: The disk is full, read-only or failing.
        StoppedError: A stop was asked for; what is repaired stays.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    cache = open_cache(path)
    cache.require_dataset(data.fingerprint)
    manifest = cache.manifest
    require_teacher(manifest, teacher)
    findings = verify_cache(path, progress=progress)
    shards = sorted({f.shard.index for f in findings if f.shard is not None})
    settings = settings_of(manifest)
    renderer = Renderer(data.images, settings.space, settings.normalization, device=device)
    asker = TeacherForward(
        teacher, data, renderer, from_config(manifest.encoding, manifest.classes), settings
    )
    with open_repairer(path) as repairer:
        repairer.restore_descriptions()
        repairer.remove([f.file for f in findings if f.problem.startswith("it does not belong")])
        todo = [repairer.layout.shard(index) for index in shards]
        entries = sum(shard.stop - shard.start for shard in todo)
        with progress.stage("repair", total=entries, unit="images") as stage:
            for done, shard in enumerate(todo):
                interrupt.check(f"{done} of {len(todo)} damaged shards are repaired")
                fields, _ = asker.answer(shard, stage.advance)
                repairer.rewrite(shard, fields)
    return Repaired(findings, len(shards))
