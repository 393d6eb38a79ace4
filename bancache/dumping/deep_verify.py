"""Check every stored value of a cache, and recompute its summary from the sums of its views; no teacher is needed."""

from __future__ import annotations

import os
from pathlib import Path

from bancache.cache.manifest_io import MANIFEST
from bancache.cache.reader import Cache, EncodedView, open_cache
from bancache.cache.verify import Finding, verify_cache
from bancache.dumping.summary import summarize_views, view_facts
from bancache.encodings.validity import describe_invalid_rows
from bancache.errors import CacheDamagedError
from bancache.system.progress import Progress


def verify_deeply(path: str | os.PathLike[str], *, progress: Progress | None = None) -> list[Finding]:
    """Do the checks of ``verify_cache``, decode every shard, check every value, and recompute the summary.

    This finds errors that were made before the digests: rows that were never written, values that are not finite or
    not possible in the encoding, broken compression frames, and wrong figures in the summary.

    Raises:
        CacheDamagedError: The manifest is missing, damaged, or that of an incomplete cache.
        MismatchError: A newer format.
    """
    path = Path(path)
    cache = open_cache(path)
    manifest = cache.manifest

    def inspect(encoded: EncodedView) -> str | None:
        return describe_invalid_rows(manifest.encoding, manifest.classes, encoded)

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
    counted = sum(view["tally"]["1"]["entries"] for view in views)
    if len(views) != manifest.num_views or counted != num_pairs:
        return f"the summary counts {counted} pairs in {len(views)} views"
    wrong = sorted(key for key, value in expected.items() if summary.get(key) != value)
    return f"'{wrong[0]}' in the summary differs from the sums of its views" if wrong else None
