"""Statistics of the teacher's logits: its accuracy, its confidence, and the encoding's loss.

The summary in a manifest has them as sums per view, so that views can be added or left out later. A shard's facts are
counts, sums and a histogram. They are added up within each view, in the order of its shards, and then over the views. So
an extended or pruned cache has, to the last bit, the summary of a fresh dump.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from msgspec import UNSET, Meta, Struct, UnsetType

from bancache.cache.layout import Layout, Shard
from bancache.cache.reader import Cache
from bancache.cache.schema import OtherDevice, Summary, Temperature
from bancache.encodings import Encoding
from bancache.encodings.fidelity import FIGURES, MEASURED, count, merge, rows_at_once, summarize
from bancache.encodings.measuring import all_figures, non_finite
from bancache.errors import CacheDamagedError, NonFiniteError
from bancache.system.checked import Amount, Count, Size, checked

OVERFLOWS = "the teacher has diverged or overflows: try --precision float32"

Facts = dict[str, Any]
# A bin is an eighth of an octave of a float32 (``fidelity``).
_Bin = Annotated[str, Meta(pattern=r"^-?(\d{1,3}|10\d\d)\Z")]
_Bins = Annotated[str, Meta(pattern=r"^-?\d{1,4}( \d{1,15}){1,2048}\Z")]


class _Tally(Struct):
    entries: Size
    agree: Count
    kl_sum: Amount
    kl_max: Amount
    bins: dict[_Bin, Count] | _Bins
    gradient_wrong: Amount | UnsetType = UNSET
    gradient_scale: Amount | UnsetType = UNSET


class _Facts(Struct):
    """The facts of a shard or of a view, in a record or in a summary."""

    tally: dict[Temperature, _Tally]
    correct: Count
    confidence: Amount
    finite: Count
    made_on: list[OtherDevice] = []


# The sums share a manifest of at most 64 MiB with the digests of up to 400,000 files.
_VIEWS_BYTES = 4 << 20
_APART = "rows of logits that are further apart than float32 counts"


class ShardStats:
    """The statistics of a shard on a CPU, float64 (rows, MEASURED), filled batch by batch.

    Several small batches share one measurement; the rows are summed when the shard is complete.
    """

    def __init__(self, shard: Shard, encoding: Encoding, labels: torch.Tensor, *, batch_size: int) -> None:
        """Allocate the rows; ``labels`` (N,) are those of all samples."""
        self._shard, self._encoding, self._batch_size = shard, encoding, batch_size
        self._labels = labels[shard.start : shard.stop]
        self._figures = torch.empty((len(self._labels), MEASURED), dtype=torch.float64)
        self._classes, self._measured, self._added = 0, 0, 0
        self._waiting: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def add(self, logits: torch.Tensor, fields: dict[str, torch.Tensor]) -> None:
        """Add the next batch: logits float32 (B, C) and their encoded fields, each (B, *shape)."""
        self._waiting.append((logits, fields))
        self._classes, self._added = logits.shape[1], self._added + len(logits)
        following = self._added - self._measured + self._batch_size
        if self._added == len(self._labels) or following > rows_at_once(self._classes):
            part = slice(self._measured, self._added)
            self._figures[part] = self._measure(self._labels[part])
            self._waiting.clear()
            self._measured = self._added

    def facts(self) -> Facts:
        """Return the facts of the shard; NonFiniteError if a logit is not finite."""
        return facts_of(self._shard, self._figures, self._classes)

    def _measure(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the statistics of the waiting batches."""
        logits = torch.cat([part for part, _ in self._waiting])
        names = self._waiting[0][1]
        fields = {name: torch.cat([part[name] for _, part in self._waiting]) for name in names}
        return all_figures(self._encoding, logits, fields, labels)


def facts_of(shard: Shard, measured: torch.Tensor, classes: int) -> Facts:
    """Return the sums of a shard's rows of numbers, (rows, MEASURED) on the host.

    A logit that is not finite is a NonFiniteError, and so are two that differ by more than float32 holds.
    """
    _refuse(measured[:, -1], shard, 0)
    lost = measured[:, :FIGURES].isfinite().logical_not_().any(dim=1)
    _refuse(lost, shard, 0, _APART)
    right, confidence, _ = measured[:, FIGURES:].double().numpy().T
    return {
        "tally": count(measured[:, :FIGURES].numpy()),
        "correct": int(right.sum()),
        "confidence": float(confidence.sum()),
        "finite": len(measured) * classes,
    }


def require_finite(logits: torch.Tensor, shard: Shard, start: int) -> None:
    """Refuse logits (B, C) that are not finite or whose differences are not; they begin at row ``start`` of a shard."""
    _refuse(non_finite(logits), shard, start)
    _refuse((logits.amax(dim=1) - logits.amin(dim=1)).isfinite().logical_not_(), shard, start, _APART)


def _refuse(counts: torch.Tensor, shard: Shard, start: int, what: str = "non-finite logits") -> None:
    if counts.any():
        sample = shard.start + start + int(torch.nonzero(counts)[0])
        raise NonFiniteError(
            f"the teacher gave {int(counts.sum())} {what}, first at sample {sample}, view {shard.view_index}",
            hint=OVERFLOWS,
        )


def summarize_shards(facts: Sequence[Facts], num_views: int) -> dict[str, Any]:
    """Return a manifest's summary from the facts of all shards, in the shards' order."""
    blocks, views = len(facts) // num_views, []
    kinds: dict[str, Any] = {}
    for start in range(0, len(facts), blocks):
        of_view = facts[start : start + blocks]
        for index, one in enumerate(of_view, start):
            checked(one, _Facts, name=f"the record of shard {index}", error=CacheDamagedError)
            kinds |= {json.dumps(kind, sort_keys=True): kind for kind in one.get("made_on", [])}
        views.append(_add(of_view))
    mixed = {"mixed_devices": [kinds[key] for key in sorted(kinds)]} if kinds else {}
    return {**summarize_views(views), **_first_shard(facts[0]), **mixed}


def summarize_views(views: Sequence[Facts]) -> dict[str, Any]:
    """Return a manifest's summary from the facts of each view; refuse views with different numbers of samples."""
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
    checked(summary, Summary, name="the summary of the shards", error=CacheDamagedError)
    packed = [_with_bins(view, _text) for view in views]
    fits = len(json.dumps(packed, indent=1)) <= _VIEWS_BYTES
    return {**summary, "slots": packed} if fits else summary


def view_facts(summary: dict[str, Any]) -> list[Facts] | None:
    """Return the facts of each view in a summary, or None if it has none: caches of earlier versions."""
    if "slots" not in summary:
        return None
    views: list[Facts] = summary["slots"]
    checked(views, list[_Facts], name="the sums of views in the manifest", error=CacheDamagedError)
    return [_with_bins(view, _bins) for view in views]


def shard_facts(cache: Cache) -> dict[int, Facts] | None:
    """Return facts for each shard of a complete cache, by index, or None if its summary has none.

    A summary has sums of whole views only: the first shard of a view gets all of them, the others get facts that
    add nothing.
    """
    views, num_views = view_facts(cache.summary), cache.manifest.num_views
    if views is None:
        return None
    if len(views) != num_views:
        raise CacheDamagedError(f"the summary of {cache.path} has {len(views)} views, the cache {num_views}")
    views[0] |= _first_shard(cache.summary) | _other_devices(cache.summary)
    blocks = range(Layout(cache.manifest).blocks)
    return dict(enumerate(view if block == 0 else empty_facts() for view in views for block in blocks))


def empty_facts() -> Facts:
    """Return the facts of no samples."""
    return {"tally": {}, "correct": 0, "confidence": 0.0, "finite": 0}


def _first_shard(facts: Facts) -> Facts:
    """Return the facts that only the first shard has."""
    return {"noise_floor": facts["noise_floor"]} if "noise_floor" in facts else {}


def _other_devices(summary: dict[str, Any]) -> Facts:
    """Return the fact of a shard that says which other kinds of device made the cache."""
    return {"made_on": summary["mixed_devices"]} if "mixed_devices" in summary else {}


def _add(facts: Sequence[Facts]) -> Facts:
    return {
        "tally": merge(one["tally"] for one in facts),
        **{key: sum(one[key] for one in facts) for key in ("correct", "confidence", "finite")},
    }


def _with_bins(facts: Facts, convert: Callable[[Any], Any]) -> Facts:
    """Return the same facts with each histogram converted."""
    tally = {t: {**one, "bins": convert(one["bins"])} for t, one in facts["tally"].items()}
    return {**facts, "tally": tally}


def _text(bins: dict[str, int]) -> str:
    """Write a histogram as text: its lowest bin, then the counts from there on."""
    numbers = range(min(map(int, bins)), max(map(int, bins)) + 1)
    return " ".join(str(value) for value in (numbers[0], *(bins.get(str(n), 0) for n in numbers)))


def _bins(text: str | dict[str, int]) -> dict[str, int]:
    if isinstance(text, dict):
        return text
    lowest, *counts = (int(word) for word in text.split())
    return {str(lowest + offset): count for offset, count in enumerate(counts) if count}
