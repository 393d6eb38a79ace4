"""Walking a whole cache: every file against the manifest, as findings rather than as a first error."""

from __future__ import annotations

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
    """One thing that is wrong with a cache.

    Attributes:
        file: Relative to the store.
        shard: Whose file it is; None for a description or a file that belongs to nothing.
        problem: In words.
    """

    file: str
    shard: Shard | None
    problem: str

    def __str__(self) -> str:
        return f"{self.shard or self.file}: {self.problem}"


def verify_cache(
    path: Path, *, inspect: Inspect | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Compare every file of a complete cache with its manifest, and look for files that are not its own.

    Args:
        path: The cache.
        inspect: Says what is wrong with the values of a shard, or None; every sound shard is then also decoded,
            which checks its CRC-32C, its size and its shape.
        progress: Is told of every file, and of every decoded shard.

    Raises:
        CacheDamagedError: The manifest itself is missing, damaged, or says that the cache is incomplete.
        MismatchError: It was written by a newer format.
    """
    cache = open_cache(path)
    layout = Layout(cache.manifest)
    shards = {key: shard for shard in layout.shards() for key in layout.chunk_keys(shard)}
    findings = []
    with (progress or Silent()).stage("verify", total=len(cache.digests), unit="files") as stage:
        for key in sorted(cache.digests):
            problem = inspect_file(path, key, cache.digests[key])
            if problem is not None:
                findings.append(Finding(key, shards.get(key), problem))
            stage.advance(1)
    if inspect is not None:
        lost = {finding.shard for finding in findings}
        sound = [shard for shard in layout.shards() if shard not in lost]
        findings += _decode(cache, sound, inspect, progress or Silent())
    known = {*cache.digests, MANIFEST}
    for file in sorted(path.rglob("*")):
        key = file.relative_to(path).as_posix()
        if key not in known and (file.is_symlink() or not file.is_dir()):
            findings.append(Finding(key, None, "it does not belong to the cache"))
    return findings


def _decode(cache: Cache, shards: list[Shard], inspect: Inspect, progress: Progress) -> list[Finding]:
    """Decode shards whose files are as the manifest says: whoever sealed it may have sealed nonsense."""
    findings = []
    with progress.stage("decode", total=len(shards), unit="shards") as stage:
        for shard in shards:
            try:
                problem = inspect(cache.shard(shard))
            # A checksum, a frame or a map that is not what the layout says.
            except (CacheDamagedError, ValueError, RuntimeError) as error:
                problem = f"it cannot be decoded: {' '.join(str(error).split())}"
            if problem is not None:
                key = Layout(cache.manifest).chunk_keys(shard)[0]
                findings.append(Finding(key, shard, problem))
            stage.advance(1)
    return findings
