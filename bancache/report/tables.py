"""The paper's Table 1 from result lines: test errors over generations, and differences to baseline and controls.

Means go with the sample standard deviation over seeds. Differences are paired by seed and go with a 95 %
confidence interval (Student's t over the seeds), which fewer than three seeds do not have: of two it has one degree
of freedom and says nothing. All numbers are fractions of one.
Beside it stands how often two models of one seed predict the same class.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bancache.report.families import (
    BASELINE,
    FIRST,
    Columns,
    Family,
    Key,
    Result,
    dicts_in,
    number,
    sort_families,
)
from bancache.report.results import Record

Shares = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Cell:
    """The test errors of one column: of each seed, their mean, their spread if there are several."""

    column: str
    mean: float
    spread: float | None
    seeds: tuple[int, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """Test error of a column minus the error of the baseline or a control, on the seeds that both have.

    ``place`` is the position of the column in its row, from which its color follows.
    """

    ours: Cell
    theirs: Cell
    place: int
    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]

    @property
    def label_only(self) -> bool:
        """Whether it is against a label-only baseline."""
        return self.theirs.column.startswith("labels-")

    @property
    def verdict(self) -> Literal["less", "more", "unclear", "few"]:
        """Whether the interval excludes zero, and on which side; ``few`` for fewer than three seeds."""
        if self.interval is None:
            return "few"
        low, high = self.interval
        return "less" if high < 0 else "more" if low > 0 else "unclear"


@dataclass(frozen=True)
class Row:
    """One family: a cell for each column and control, a difference for each comparison that shares a seed."""

    key: Key
    cells: tuple[Cell, ...]
    controls: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    control_differences: tuple[Difference, ...]

    def cell(self, column: str) -> Cell | None:
        """Return the cell of a column; None if this row has none."""
        return next((cell for cell in self.cells if cell.column == column), None)

    def difference(self, column: str) -> Difference | None:
        """Return the difference of a column to the baseline; None if no seed has both."""
        return next((d for d in self.differences if d.ours.column == column), None)


@dataclass(frozen=True)
class Table:
    """One row for each family; ``labels`` are the fields of the key that tell the rows apart."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def reference(self) -> str:
        """What the differences are to: ``baseline``, ``teacher`` if that was there already, or both in their rows."""
        columns = [difference.theirs.column for row in self.rows for difference in row.differences]
        return " or ".join(dict.fromkeys(columns)) or BASELINE

    def names(self, row: Row) -> tuple[str, ...]:
        """Return the values of the labels for a row."""
        values = [getattr(row.key, label) for label in self.labels]
        return tuple("" if value is None else str(value) for value in values)


def generations_table(records: Sequence[Record]) -> Table:
    """Return the table of all runs and ensembles in the records."""
    return table_of(sort_families(records))


def table_of(families: Sequence[Family]) -> Table:
    """Return the table with one row for each family, in the same order."""
    ranks = {name: results[0].rank for family in families for name, results in family.columns.items()}
    optional = [n for n in ("data", "num_views") if len({getattr(family.key, n) for family in families}) > 1]
    columns = tuple(sorted(ranks, key=lambda column: ranks[column]))
    return Table(("model", "loss", *optional), columns, tuple(_row(family) for family in families))


def spread_of(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def interval_of(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % confidence interval of the mean; None for fewer than three values."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    if len(values) < 3:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _row(family: Family) -> Row:
    columns, controls = family.columns, family.controls
    baseline = next((columns[column] for column in FIRST if column in columns), ())
    against_baseline = [(column, baseline) for column in columns if column not in FIRST]
    against_controls = [(a, controls[b]) for a in columns for b in controls if _is_control_of(a, b)]
    return Row(
        family.key,
        cells=tuple(map(cell_of, columns.values())),
        controls=tuple(map(cell_of, controls.values())),
        differences=tuple(differences_of(columns, against_baseline)),
        control_differences=tuple(differences_of(columns, against_controls)),
    )


def _is_control_of(column: str, control: str) -> bool:
    """Pair BAN-k with its label-only baseline, BAN-1 also with the doubled CE weight, Ens*k with Ctl*k."""
    kind, _, size = column.replace("*", "-").rpartition("-")
    return control == {"BAN": f"labels-{size}", "Ens": f"Ctl*{size}"}.get(kind) or (
        column == "BAN-1" and control.startswith("weight-")
    )


def differences_of(columns: Columns, pairs: Sequence[tuple[str, Sequence[Result]]]) -> Iterator[Difference]:
    """Yield for each pair of a column and others' results their difference, if they share a seed."""
    for column, others in pairs:
        there = {other.seed: other for other in others}
        ours = [result for result in columns[column] if result.seed in there]
        theirs = [there[result.seed] for result in ours]
        values = tuple(a.error - b.error for a, b in zip(ours, theirs, strict=True))
        if values:
            place, mean = list(columns).index(column), statistics.fmean(values)
            yield Difference(cell_of(ours), cell_of(theirs), place, mean, interval_of(values), values)


def cell_of(results: Sequence[Result]) -> Cell:
    """Return the cell of a column's results."""
    errors = tuple(result.error for result in results)
    seeds = tuple(result.seed for result in results)
    return Cell(results[0].column, statistics.fmean(errors), spread_of(errors), seeds, errors)


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
