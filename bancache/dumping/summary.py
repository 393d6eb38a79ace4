"""What a manifest says of its entries, as sums over views that stay there, so that views can be added or left out.

A shard's facts are counts, sums and a histogram. They are added up within each view index, in the order of blocks, and
then over views: a cache that grew by some views, or lost some, says to the last bit what a fresh dump would say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bancache.encodings.fidelity import merge, summarize
from bancache.errors import CacheDamagedError

Facts = dict[str, Any]

# Facts of the first shard alone.
OF_FIRST = ("noise_floor",)

# The sums of views share a manifest of at most 64 MiB with up to 400,000 files.
_VIEWS_BYTES = 4 << 20


def summarize_entries(facts: Sequence[Facts], num_views: int) -> dict[str, Any]:
    """Return a manifest's summary from all shards' facts, in the shards' order.

    The first shard's tell what the teacher differs from itself by, if it was asked.

    Raises:
        CacheDamagedError: The views' facts are not of equally many entries.
    """
    blocks = len(facts) // num_views
    summary = summarize_views(
        [_add(facts[view_index * blocks : (view_index + 1) * blocks]) for view_index in range(num_views)]
    )
    return {**summary, **{key: facts[0][key] for key in OF_FIRST if key in facts[0]}}


def summarize_views(each: Sequence[Facts]) -> dict[str, Any]:
    """Return a manifest's summary from the facts of each view index: fidelity, and how good and sure the teacher was."""
    counts = [sorted({part["entries"] for part in one["tally"].values()}) for one in each]
    if any(count != counts[0] or len(count) != 1 for count in counts):
        raise CacheDamagedError(f"the records count {counts[0]} entries of view 0, {max(counts)} of another")
    total, entries = _add(each), counts[0][0] * len(each)
    summary = {
        "fidelity": summarize(total["tally"]),
        "finite_values": total["finite"],
        "teacher_accuracy": total["correct"] / entries,
        "teacher_mean_max_probability": total["confidence"] / entries,
    }
    packed = [_packed(one) for one in each]
    fits = len(json.dumps(packed, indent=1)) <= _VIEWS_BYTES
    return {**summary, "slots": packed} if fits else summary


def views_of(summary: dict[str, Any]) -> list[Facts] | None:
    """Return the facts of each view index that a summary keeps, or None where it keeps none."""
    if "slots" not in summary:
        return None
    try:
        return [_unpacked(one) for one in summary["slots"]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CacheDamagedError(f"the sums of views in the manifest make no sense: {error!r}") from error


def nothing() -> Facts:
    """Return the facts of no entries, which add nothing to others."""
    return {"tally": {}, "correct": 0, "confidence": 0.0, "finite": 0}


def _add(facts: Sequence[Facts]) -> Facts:
    return {
        "tally": merge(one["tally"] for one in facts),
        **{key: sum(one[key] for one in facts) for key in ("correct", "confidence", "finite")},
    }


def _packed(facts: Facts) -> Facts:
    """Return the same with each histogram as one text: its lowest bin, then the counts from there on."""
    return {**facts, "tally": {t: {**one, "bins": _text(one["bins"])} for t, one in facts["tally"].items()}}


def _unpacked(facts: Facts) -> Facts:
    return {**facts, "tally": {t: {**one, "bins": _bins(one["bins"])} for t, one in facts["tally"].items()}}


def _text(bins: dict[str, int]) -> str:
    numbers = sorted(int(bin_) for bin_ in bins)
    counts = (bins.get(str(number), 0) for number in range(numbers[0], numbers[-1] + 1))
    return " ".join(str(value) for value in (numbers[0], *counts))


def _bins(text: str) -> dict[str, int]:
    lowest, *counts = (int(word) for word in text.split())
    return {str(lowest + place): count for place, count in enumerate(counts) if count}
