"""The summary in a manifest: statistics as sums per view, so that views can be added or left out later.

A shard's facts are counts, sums and a histogram. They are added up within each view, in the order of its shards, and
then over the views. So an extended or pruned cache has, to the last bit, the summary of a fresh dump.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache
from bancache.encodings.fidelity import merge, summarize
from bancache.errors import CacheDamagedError

Facts = dict[str, Any]

# Facts that only the first shard has.
_FIRST_SHARD_KEYS = ("noise_floor",)
# The sums share a manifest of at most 64 MiB with the digests of up to 400,000 files.
_VIEWS_BYTES = 4 << 20


def summarize_shards(facts: Sequence[Facts], num_views: int) -> dict[str, Any]:
    """Return a manifest's summary from the facts of all shards, in the shards' order.

    Raises:
        CacheDamagedError: The views' facts count different numbers of samples.
    """
    blocks = len(facts) // num_views
    views = [_add(facts[start : start + blocks]) for start in range(0, len(facts), blocks)]
    return {**summarize_views(views), **_first_shard(facts[0])}


def summarize_views(views: Sequence[Facts]) -> dict[str, Any]:
    """Return a manifest's summary from the facts of each view."""
    counts = [sorted({part["entries"] for part in view["tally"].values()}) for view in views]
    if any(count != counts[0] or len(count) != 1 for count in counts):
        raise CacheDamagedError(f"the records count {counts[0]} samples of view 0, {max(counts)} of another")
    total, num_pairs = _add(views), counts[0][0] * len(views)
    summary = {
        "fidelity": summarize(total["tally"]),
        "finite_values": total["finite"],
        "teacher_accuracy": total["correct"] / num_pairs,
        "teacher_mean_max_probability": total["confidence"] / num_pairs,
    }
    packed = [_packed(view) for view in views]
    fits = len(json.dumps(packed, indent=1)) <= _VIEWS_BYTES
    return {**summary, "slots": packed} if fits else summary


def view_facts(summary: dict[str, Any]) -> list[Facts] | None:
    """Return the facts of each view in a summary, or None if it has none: caches of earlier versions.

    Raises:
        CacheDamagedError: They make no sense.
    """
    if "slots" not in summary:
        return None
    try:
        return [_unpacked(view) for view in summary["slots"]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CacheDamagedError(f"the sums of views in the manifest make no sense: {error!r}") from error


def shard_facts(cache: Cache) -> dict[int, Facts] | None:
    """Return facts for each shard of a complete cache, by index, or None if its summary has none.

    A summary has sums of whole views only: the first shard of a view gets all of them, the others get facts that
    add nothing.

    Raises:
        CacheDamagedError: The facts make no sense.
    """
    views, num_views = view_facts(cache.summary), cache.manifest.num_views
    if views is None:
        return None
    if len(views) != num_views:
        raise CacheDamagedError(f"the summary of {cache.path} has {len(views)} views, the cache {num_views}")
    views[0] |= _first_shard(cache.summary)
    blocks = range(Layout(cache.manifest).blocks)
    return dict(enumerate(view if block == 0 else empty_facts() for view in views for block in blocks))


def empty_facts() -> Facts:
    """Return the facts of no samples."""
    return {"tally": {}, "correct": 0, "confidence": 0.0, "finite": 0}


def _first_shard(facts: Facts) -> Facts:
    return {key: facts[key] for key in _FIRST_SHARD_KEYS if key in facts}


def _add(facts: Sequence[Facts]) -> Facts:
    return {
        "tally": merge(one["tally"] for one in facts),
        **{key: sum(one[key] for one in facts) for key in ("correct", "confidence", "finite")},
    }


def _packed(facts: Facts) -> Facts:
    """Return the same facts with each histogram as text: its lowest bin, then the counts from there on."""
    return {**facts, "tally": {t: {**one, "bins": _text(one["bins"])} for t, one in facts["tally"].items()}}


def _unpacked(facts: Facts) -> Facts:
    return {**facts, "tally": {t: {**one, "bins": _bins(one["bins"])} for t, one in facts["tally"].items()}}


def _text(bins: dict[str, int]) -> str:
    numbers = sorted(int(bin_) for bin_ in bins)
    counts = (bins.get(str(number), 0) for number in range(numbers[0], numbers[-1] + 1))
    return " ".join(str(value) for value in (numbers[0], *counts))


def _bins(text: str) -> dict[str, int]:
    lowest, *counts = (int(word) for word in text.split())
    return {str(lowest + offset): count for offset, count in enumerate(counts) if count}
