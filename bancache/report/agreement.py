"""How often two models of one seed predict the same class."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bancache.report.families import BASELINE, Family, dicts_in, number
from bancache.report.results import Record

Shares = dict[tuple[str, str], list[float]]


def shares_of(family: Family, records: Sequence[Record]) -> Shares:
    """Return the shares of each pair of models, one for each seed; of two records the last one counts."""
    results = [result for columns in family[1:] for column in columns.values() for result in column]
    names = {weights: r.column for r in results if isinstance(weights := r.record.get("weights"), str)}
    found: dict[tuple[str, str], float] = {}
    for record in records:
        for other in dicts_in(record, "with") if record.get("kind") == "agreement" else ():
            if (share := number(other.get("share"))) is not None:
                found[str(record.get("weights")), str(other.get("weights"))] = share
    pairs: Shares = {}
    for (mine, theirs), share in found.items():
        if mine in names and theirs in names:
            pairs.setdefault((names[mine], names[theirs]), []).append(share)
    return pairs


def agreement(family: Family, records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the mean shares of the generations and of the label-only models; None if there are none."""
    shares = shares_of(family, records)
    generations = [name for name in family.columns if "*" not in name]
    labels = [BASELINE, *(name for name in family.controls if name.startswith("labels-"))]
    matrices = {"generations": _matrix(shares, generations), "labels": _matrix(shares, labels)}
    return {**matrices, "seeds": max(map(len, shares.values()))} if any(matrices.values()) else None


def _matrix(shares: Shares, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return columns below the diagonal in per cent: each model against those before it."""
    columns = []
    for place, before in enumerate(names[:-1]):
        pairs = [
            shares.get((later, before), []) if row >= place else [] for row, later in enumerate(names[1:])
        ]
        columns.append((before, [f"{100 * statistics.fmean(v):.1f}" if v else None for v in pairs]))
    return [("", names[1:], "text"), *columns] if any(any(values) for _, values in columns) else []
