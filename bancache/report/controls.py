"""The parts of the page about what the students' figures mean: controls without a teacher, and agreement."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bancache.report.dots import interval_bars
from bancache.report.families import BASELINE, Family, number
from bancache.report.finding import typeset
from bancache.report.listings import Column, listing, section
from bancache.report.markup import Markup, element
from bancache.report.results import Record
from bancache.report.tables import Difference, Row, cell_text, points

_WHAT_THEY_ARE = (
    "Nets of the same recipe without a teacher. labels-k is student k taught by labels alone: the same first "
    "weights, the same order of images. weight-2 is labels-1 with its loss counted twice, as the students' sum "
    "of two cross-entropies is beside one weight decay. Ctl*k is the ensemble of labels-1 to labels-k. "
)
_HOW_TO_READ = "Difference of the test errors in percentage points, paired by seed; left of the line the student is better."

Shares = dict[tuple[str, str], list[float]]


def controls_section(row: Row, suffix: str) -> Markup | None:
    """Put each student, and each ensemble of students, beside what it is without a teacher."""
    differences = row.control_differences
    if not differences:
        return None
    pairs = [row.both(difference) for difference in differences]
    columns = [
        Column("net", [net.column for net, _ in pairs], "text"),
        Column("control", [control.column for _, control in pairs], "text"),
        Column("", interval_bars(row, differences), "bar"),
        Column("points", [typeset(points(difference.mean)) for difference in differences]),
        Column("95 % interval", [_interval(difference) for difference in differences]),
        Column("error, %", [cell_text(net) for net, _ in pairs]),
        Column("control's", [cell_text(control) for _, control in pairs]),
        Column("seeds", [str(len(difference.seeds)) for difference in differences]),
    ]
    title = f"Against the controls{suffix}"
    return section(title, listing("Difference to the controls", columns), note=_WHAT_THEY_ARE + _HOW_TO_READ)


def agreement_section(family: Family, records: Sequence[Record], suffix: str) -> Markup | None:
    """Show how often two nets of one seed give the same answer: the generations, and the nets without a teacher."""
    shares = shares_of(family, records)
    generations = [name for name in family.columns() if "*" not in name]
    labels = [BASELINE, *(name for name in family.control_columns() if name.startswith("labels-"))]
    tables = [_matrix("Agreement of generations", shares, generations)]
    tables.append(_matrix("Agreement of nets without a teacher", shares, labels))
    there = [table for table in tables if table]
    if not there:
        return None
    seeds = max(len(values) for values in shares.values())
    note = (
        f"Share of the test images on which two nets of a seed hold the same class for likeliest, in %"
        f"{f', mean over {seeds} seeds' if seeds > 1 else ''}. Of nets equally good, those that agree less make "
        "the better ensemble."
    )
    return section(f"Agreement{suffix}", element("div", *there, class_="matrices"), note=note)


def shares_of(family: Family, records: Sequence[Record]) -> Shares:
    """Give the shares of each pair of a family's nets, one for each seed; of two records the last one counts."""
    nets = [(r.record.get("weights"), r.column) for r in (*family.results, *family.controls)]
    names = {weights: name for weights, name in nets if isinstance(weights, str)}
    found: dict[tuple[str, str], tuple[tuple[str, str], float]] = {}
    for record in records:
        others = record.get("with") if record.get("kind") == "agreement" else None
        mine = record.get("weights")
        for other in others if isinstance(others, list) else ():
            theirs = other.get("weights") if isinstance(other, dict) else None
            share = number(other.get("share")) if isinstance(other, dict) else None
            if (
                share is not None
                and isinstance(mine, str)
                and isinstance(theirs, str)
                and {mine, theirs} <= set(names)
            ):
                found[mine, theirs] = (names[mine], names[theirs]), share
    pairs: Shares = {}
    for pair, share in found.values():
        pairs.setdefault(pair, []).append(share)
    return pairs


def _matrix(label: str, shares: Shares, names: Sequence[str]) -> Markup | None:
    """Lay the pairs out below the diagonal: each net against those before it."""
    if not any((later, before) in shares for place, later in enumerate(names) for before in names[:place]):
        return None
    columns = [Column("", names[1:], "text")]
    for place, before in enumerate(names[:-1]):
        values = [
            shares.get((later, before)) if row >= place else None for row, later in enumerate(names[1:])
        ]
        columns.append(Column(before, [f"{100 * statistics.fmean(v):.1f}" if v else None for v in values]))
    return listing(label, columns)


def _interval(difference: Difference) -> str | None:
    if difference.interval is None:
        return None
    low, high = (typeset(points(end)) for end in difference.interval)
    return f"{low} to {high}"
