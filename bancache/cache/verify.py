"""Checking a whole cache: every file against the manifest, as a list of findings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bancache.cache.digests import inspect_file
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, EncodedView, open_cache
from bancache.errors import CacheDamagedError
from bancache.system.progress import Progress, Silent

Inspect = Callable[[EncodedView], str | None]


@dataclass(frozen=True)
class Finding:
    """One problem of a cache.

    Attributes:
        file: Path relative to the cache's directory.
        shard: The file's shard; None for a zarr.json or a file that does not belong to the cache.
        problem: In words.
    """

    file: str
    shard: Shard | None
    problem: str

    def __str__(self) -> str:
        return f"{self.shard or self.file}: {self.problem}"


def verify_cache(
    path: str | os.PathLike[str], *, inspect: Inspect | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Compare every file of a complete cache with its manifest, and look for files that do not belong to it.

    Args:
        path: The cache's directory.
        inspect: Returns what is wrong with a shard's values, or None. With it, every shard with intact files is also
            decoded, which checks its CRC-32C, its size and its shape.
        progress: Counts files, then decoded shards.

    Raises:
        CacheDamagedError: The manifest is missing or damaged, or the cache is incomplete.
        MismatchError: A newer format wrote it.
    """
    path, progress = Path(path), progress or Silent()
    cache = open_cache(path)
    layout = Layout(cache.manifest)
    shards = {key: shard for shard in layout.shards() for key in layout.chunk_keys(shard)}
    findings = []
    with progress.stage("verify", total=len(cache.digests), unit="files") as stage:
        for key in sorted(cache.digests):
            problem = inspect_file(path, key, cache.digests[key])
            if problem is not None:
                findings.append(Finding(key, shards.get(key), problem))
            stage.advance(1)
    if inspect is not None:
        lost = {finding.shard for finding in findings}
        intact = [shard for shard in layout.shards() if shard not in lost]
        findings += _decode(cache, intact, inspect, progress)
    known = {*cache.digests, MANIFEST}
    for file in sorted(path.rglob("*")):
        key = file.relative_to(path).as_posix()
        if key not in known and (file.is_symlink() or not file.is_dir()):
            findings.append(Finding(key, None, "it does not belong to the cache"))
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
