"""Walking a whole cache: every file against the manifest, as findings rather than as a first error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bancache.cache.digests import inspect_file
from bancache.cache.layout import Layout, Region
from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, Slab, open_cache
from bancache.errors import CacheDamagedError
from bancache.system.progress import Progress, Silent

Inspect = Callable[[Slab], str | None]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a cache.

    Attributes:
        file: Relative to the store.
        region: Whose file it is; None for a description or a file that belongs to nothing.
        problem: In words.
    """

    file: str
    region: Region | None
    problem: str

    def __str__(self) -> str:
        return f"{self.region or self.file}: {self.problem}"


def verify_cache(
    path: Path, *, inspect: Inspect | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Compare every file of a complete cache with its manifest, and look for files that are not its own.

    Args:
        path: The cache.
        inspect: Says what is wrong with the values of a region, or None; every sound region is then also decoded,
            which checks its CRC-32C, its size and its shape.
        progress: Is told of every file, and of every decoded region.

    Raises:
        CacheDamagedError: The manifest itself is missing, damaged, or says that the cache is incomplete.
        MismatchError: It was written by a newer format.
    """
    cache = open_cache(path)
    layout = Layout(cache.manifest)
    regions = {key: region for region in layout.regions() for key in layout.chunk_keys(region)}
    findings = []
    with (progress or Silent()).stage("verify", total=len(cache.digests), unit="files") as stage:
        for key in sorted(cache.digests):
            problem = inspect_file(path, key, cache.digests[key])
            if problem is not None:
                findings.append(Finding(key, regions.get(key), problem))
            stage.advance(1)
    if inspect is not None:
        lost = {finding.region for finding in findings}
        sound = [region for region in layout.regions() if region not in lost]
        findings += _decode(cache, sound, inspect, progress or Silent())
    known = {*cache.digests, MANIFEST}
    for file in sorted(path.rglob("*")):
        key = file.relative_to(path).as_posix()
        if key not in known and (file.is_symlink() or not file.is_dir()):
            findings.append(Finding(key, None, "it does not belong to the cache"))
    return findings


def _decode(cache: Cache, regions: list[Region], inspect: Inspect, progress: Progress) -> list[Finding]:
    """Decode regions whose files are as the manifest says: whoever sealed it may have sealed nonsense."""
    findings = []
    with progress.stage("decode", total=len(regions), unit="regions") as stage:
        for region in regions:
            try:
                problem = inspect(cache.region(region))
            # A checksum, a frame or a map that is not what the layout says.
            except (CacheDamagedError, ValueError, RuntimeError) as error:
                problem = f"it cannot be decoded: {' '.join(str(error).split())}"
            if problem is not None:
                key = Layout(cache.manifest).chunk_keys(region)[0]
                findings.append(Finding(key, region, problem))
            stage.advance(1)
    return findings
