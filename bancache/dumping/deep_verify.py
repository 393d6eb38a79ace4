"""Looking at everything that a cache holds, and adding up again what its manifest says of it; no teacher is asked."""

from __future__ import annotations

from pathlib import Path

from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, EncodedView, open_cache
from bancache.cache.verify import Finding, verify_cache
from bancache.dumping.summary import summarize_views, views_of
from bancache.encodings.soundness import problem_of
from bancache.errors import CacheDamagedError
from bancache.system.progress import Progress


def verify_deeply(path: Path, *, progress: Progress | None = None) -> list[Finding]:
    """Do what ``verify_cache`` does, decode every shard, look at every value, and add the summary up again.

    This finds what a digest cannot: a cache that was sealed over rows that nobody wrote, numbers that are not finite,
    frames that are not what they announce, and figures that do not follow from the sums beside them.

    Raises:
        CacheDamagedError: The manifest itself is missing, damaged, or says that the cache is incomplete.
        MismatchError: It was written by a newer format.
    """
    cache = open_cache(path)
    manifest = cache.manifest

    def inspect(encoded: EncodedView) -> str | None:
        return problem_of(manifest.encoding, manifest.classes, encoded)

    findings = verify_cache(path, inspect=inspect, progress=progress)
    if problem := _summary_problem(cache):
        findings.append(Finding(MANIFEST, None, problem))
    return findings


def _summary_problem(cache: Cache) -> str | None:
    """Say what in the summary does not follow from the sums of its views, or None; older caches keep no sums."""
    manifest, summary = cache.manifest, cache.summary
    values = manifest.samples * manifest.num_views * manifest.classes
    if summary.get("finite_values", values) != values:
        return f"its summary counts {summary['finite_values']} finite values of {values}"
    try:
        each = views_of(summary)
        again = None if each is None else summarize_views(each)
    except CacheDamagedError as error:
        return f"its summary makes no sense: {error}"
    if each is None or again is None:
        return None
    entries = sum(one["tally"]["1"]["entries"] for one in each)
    if len(each) != manifest.num_views or entries != manifest.samples * manifest.num_views:
        return f"its summary is of {entries} entries in {len(each)} views"
    wrong = sorted(key for key, value in again.items() if summary.get(key) != value)
    return f"'{wrong[0]}' in its summary is not what its views add up to" if wrong else None
