"""Checking every file of a complete cache against its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from bancache.cache.files import open_files
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, EncodedView, open_cache
from bancache.cache.records import OTHERS
from bancache.errors import CacheDamagedError
from bancache.system.progress import Progress, Silent

_NAMED = 8
Inspect = Callable[[EncodedView], str | None]


@dataclass(frozen=True)
class Finding:
    """One problem of a cache; ``shard`` is None for a zarr.json."""

    file: str
    shard: Shard | None
    problem: str

    def __str__(self) -> str:
        return f"{self.shard or self.file}: {self.problem}"


def verify_cache(
    path: str | os.PathLike[str], *, inspect: Inspect | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Compare every file of a complete cache with its manifest; files that it does not list are noted, and no damage.

    ``inspect`` returns what is wrong with a shard's values, or None. With it, every shard with intact files is also
    decoded, which checks its CRC-32C, its size and its shape.

    Raises:
        CacheDamagedError: It is missing or incomplete, or its manifest was changed.
        MismatchError: It was replaced by another one meanwhile, so that files do not match.
    """
    progress, cache = progress or Silent(), open_cache(path)
    path, layout, files = cache.path, Layout(cache.manifest), open_files(path)
    shards = {key: shard for shard in layout.shards() for key in layout.chunk_keys(shard)}
    findings = []
    with progress.stage("verify", total=len(cache.digests), unit="files") as stage:
        listed = sorted(cache.digests.items())
        for (key, _), problem in zip(listed, files.problems(listed), strict=True):
            if problem is not None:
                findings.append(Finding(key, shards.get(key), problem))
            stage.advance(1)
    if inspect is not None:
        lost = {finding.shard for finding in findings}
        intact = [shard for shard in layout.shards() if shard not in lost]
        findings += _decode(cache, intact, inspect, progress)
    if findings:
        cache._require_current()
    known = {*cache.digests, MANIFEST}
    if unknown := [key for key in files.keys(len(known) + OTHERS) if key not in known]:
        more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        progress.note(
            f"{path} holds unknown files, which are left alone: {', '.join(unknown[:_NAMED])}{more}"
        )
    return findings


def _decode(cache: Cache, shards: list[Shard], inspect: Inspect, progress: Progress) -> list[Finding]:
    """Decode shards whose digests hold: a manifest may carry digests of files that are not chunks."""
    findings = []
    with progress.stage("decode", total=len(shards), unit="shards") as stage:
        for shard in shards:
            try:
                problem = inspect(cache.shard(shard))
            except (CacheDamagedError, ValueError, RuntimeError) as error:
                problem = f"it cannot be decoded: {' '.join(str(error).split())}"
            if problem is not None:
                key = Layout(cache.manifest).chunk_keys(shard)[0]
                findings.append(Finding(key, shard, problem))
            stage.advance(1)
    return findings
