"""The paper's Table 1 from result lines: test errors over generations, and what each gains on the baseline.

Means go with the sample standard deviation over seeds. Differences are paired by seed and go with a 95 %
confidence interval (Student's t over the seeds). With one seed there is neither a spread nor an interval.
Every number in a table is a fraction of one; the renderings show per cent and percentage points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bancache.report.families import BASELINE, Family, Result, sort_families
from bancache.results import Record


@dataclass(frozen=True)
class Cell:
    """The test error of one column: every seed's, their mean, and their spread where there are several."""

    column: str
    mean: float
    spread: float | None
    seeds: tuple[int, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """How much more (less, if negative) a column errs than the baseline of the same seed."""

    column: str
    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One family of nets: a cell for each of its columns, a difference for each one beside the baseline."""

    data: str
    model: str
    loss: str
    num_views: int | None
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]

    def cell(self, column: str) -> Cell | None:
        """Give the cell of a column, None where this row has none."""
        return next((cell for cell in self.cells if cell.column == column), None)

    def difference(self, column: str) -> Difference | None:
        """Give the difference of a column, None where no seed has both it and a baseline."""
        return next((d for d in self.differences if d.column == column), None)


@dataclass(frozen=True)
class Table:
    """Test errors in the shape of the paper's Table 1.

    Attributes:
        labels: What tells the rows apart: model and loss, and data or cache size where they differ.
        columns: ``baseline``, ``BAN-1`` and so on, then the ensembles; those that some row has.
        rows: One for each family of nets.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def names(self, row: Row) -> tuple[str, ...]:
        """Give what the labels say of a row."""
        values = asdict(row)
        return tuple("" if values[label] is None else str(values[label]) for label in self.labels)


def generations_table(records: Sequence[Record]) -> Table:
    """Make the table of all runs and ensembles in the records.

    Raises:
        DataError: A run or an ensemble has no generation, seed or test error.
    """
    return table_of(sort_families(records))


def table_of(families: Sequence[Family]) -> Table:
    """Make the table of families: one row for each, in their order."""
    ranks = {result.column: result.rank for family in families for result in family.results}
    optional = [
        name for name in ("data", "num_views") if len({getattr(family, name) for family in families}) > 1
    ]
    return Table(
        labels=("model", "loss", *optional),
        columns=tuple(sorted(ranks, key=lambda column: ranks[column])),
        rows=tuple(_row(family) for family in families),
    )


def to_text(table: Table) -> str:
    """Write the table for a terminal: a line for each row's column, because six columns do not fit.

    Characters that a terminal would obey are replaced.
    """
    head = (*table.labels, "net", "error %", "seeds", "against the baseline, points")
    lines = [head]
    for row in table.rows:
        names = table.names(row)
        for cell in row.cells:
            difference = row.difference(cell.column)
            shown = difference_text(difference) if difference else ""
            lines.append((*names, cell.column, cell_text(cell), str(len(cell.seeds)), shown))
            names = ("",) * len(names)
    clean = [[_printable(text) for text in line] for line in lines]
    widths = [max(len(line[place]) for line in clean) for place in range(len(head))]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in clean
    )


def to_markdown(table: Table) -> str:
    """Write the table in the paper's shape, and under it the differences to the baseline, in Markdown."""
    head = [*table.labels, *table.columns]
    rows = []
    for row in table.rows:
        cells = [row.cell(column) for column in table.columns]
        shown = [f"{cell_text(cell)} ({len(cell.seeds)})" if cell else "" for cell in cells]
        rows.append([*table.names(row), *shown])
    errors = _markdown(head, rows, numbers=len(table.columns))
    differences = [
        [*table.names(row), d.column, difference_text(d), str(len(d.seeds))]
        for row in table.rows
        for d in row.differences
    ]
    text = f"Test error in %, mean ± spread over seeds (number of seeds).\n\n{errors}"
    if differences:
        head = [*table.labels, "net", "against the baseline", "seeds"]
        text += "\nDifference in percentage points, paired by seed: mean [95 % confidence interval].\n\n"
        text += _markdown(head, differences, numbers=2)
    return text


def to_rows(table: Table) -> list[dict[str, Any]]:
    """Give one dict for each cell, ready for JSON; errors and differences are fractions of one."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        for cell in row.cells:
            difference = row.difference(cell.column)
            interval = difference.interval if difference else None
            rows.append(
                {
                    "data": row.data,
                    "model": row.model,
                    "loss": row.loss,
                    "num_views": row.num_views,
                    "net": cell.column,
                    "error": cell.mean,
                    "error_spread": cell.spread,
                    "seeds": list(cell.seeds),
                    "errors": list(cell.errors),
                    "difference": difference.mean if difference else None,
                    "difference_interval": list(interval) if interval else None,
                    "difference_seeds": list(difference.seeds) if difference else [],
                }
            )
    return rows


def cell_text(cell: Cell) -> str:
    """Write a cell in per cent: the mean, with the spread where there is one."""
    spread = "" if cell.spread is None else f" ± {100 * cell.spread:.2f}"
    return f"{100 * cell.mean:.2f}{spread}"


def difference_text(difference: Difference) -> str:
    """Write a difference in percentage points: the mean, with the interval where there is one."""
    if difference.interval is None:
        return points(difference.mean)
    low, high = difference.interval
    return f"{points(difference.mean)} [{points(low)}, {points(high)}]"


def points(fraction: float) -> str:
    """Write a difference of fractions in signed percentage points; what rounds to zero has no sign."""
    text = f"{100 * fraction:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def spread_of(values: Sequence[float]) -> float | None:
    """Give the sample standard deviation; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def interval_of(values: Sequence[float]) -> tuple[float, float] | None:
    """Give Student's 95 % confidence interval of the mean; None for a single value."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    spread = spread_of(values)
    if spread is None:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _row(family: Family) -> Row:
    columns = family.columns()
    baseline = {result.seed: result.error for result in columns.get(BASELINE, ())}
    differences = (
        _difference(results, baseline) for column, results in columns.items() if column != BASELINE
    )
    return Row(
        family.data,
        family.model,
        family.loss,
        family.num_views,
        cells=tuple(_cell(results) for results in columns.values()),
        differences=tuple(difference for difference in differences if difference),
    )


def _cell(results: Sequence[Result]) -> Cell:
    errors = tuple(result.error for result in results)
    seeds = tuple(result.seed for result in results)
    return Cell(results[0].column, statistics.fmean(errors), spread_of(errors), seeds, errors)


def _difference(results: Sequence[Result], baseline: dict[int, float]) -> Difference | None:
    paired = [result for result in results if result.seed in baseline]
    if not paired:
        return None
    values = tuple(result.error - baseline[result.seed] for result in paired)
    seeds = tuple(result.seed for result in paired)
    return Difference(paired[0].column, statistics.fmean(values), interval_of(values), seeds, values)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    lines = [head, rule, *rows]
    return "".join("| " + " | ".join(_cell_of_markdown(text) for text in line) + " |\n" for line in lines)


def _cell_of_markdown(text: str) -> str:
    for special in "\\`*_<>|":
        text = text.replace(special, "\\" + special)
    return _printable(text).replace("](", "]\\(")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
