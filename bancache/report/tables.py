"""The paper's Table 1 from result lines: test errors over generations, and what each gains on the baseline.

Beside them stand the controls, nets without a teacher, and what the students gain on those. Means go with
the sample standard deviation over seeds. Differences are paired by seed and go with a 95 % confidence interval (Student's t over the seeds). With one seed there is neither a spread nor an interval.
Every number in a table is a fraction of one; what is written shows per cent and percentage points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from bancache.report.families import BASELINE, Family, Result, sort_families
from bancache.report.results import Record


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
    """How much more (less, if negative) a column errs than the baseline, or a control, of the same seed."""

    column: str
    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    against: str = BASELINE


@dataclass(frozen=True)
class Row:
    """One family of nets: a cell for each of its columns, a difference for each one beside the baseline.

    The controls have cells of their own, and a difference for each column that has a control.
    """

    data: str
    model: str
    loss: str
    num_views: int | None
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    controls: tuple[Cell, ...] = ()
    control_differences: tuple[Difference, ...] = ()

    def cell(self, column: str) -> Cell | None:
        """Give the cell of a column, None where this row has none."""
        return next((cell for cell in self.cells if cell.column == column), None)

    def difference(self, column: str) -> Difference | None:
        """Give the difference of a column, None where no seed has both it and a baseline."""
        return next((d for d in self.differences if d.column == column), None)

    def both(self, difference: Difference) -> tuple[Cell, Cell]:
        """Give the cells of a column and of its control, of the seeds that have both."""
        cells = {cell.column: cell for cell in (*self.cells, *self.controls)}
        net, control = (
            _of_seeds(cells[name], difference.seeds) for name in (difference.column, difference.against)
        )
        return net, control


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
    columns, controls = family.columns(), family.control_columns()
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
        controls=tuple(_cell(results) for results in controls.values()),
        control_differences=tuple(_against_controls(columns, controls)),
    )


def _against_controls(
    columns: Mapping[str, Sequence[Result]], controls: Mapping[str, Sequence[Result]]
) -> Iterator[Difference]:
    """Pair each student with its twin, the first also with the one whose loss counts twice, each ensemble with its like."""
    for column, results in columns.items():
        for control, others in controls.items():
            if _is_control_of(column, control):
                errors = {other.seed: other.error for other in others}
                if found := _difference(results, errors, against=control):
                    yield found


def _is_control_of(column: str, control: str) -> bool:
    kind, _, number = column.replace("*", "-").rpartition("-")
    return control == {"BAN": f"labels-{number}", "Ens": f"Ctl*{number}"}.get(kind) or (
        column == "BAN-1" and control.startswith("weight-")
    )


def _cell(results: Sequence[Result]) -> Cell:
    errors = tuple(result.error for result in results)
    seeds = tuple(result.seed for result in results)
    return Cell(results[0].column, statistics.fmean(errors), spread_of(errors), seeds, errors)


def _of_seeds(cell: Cell, seeds: Sequence[int]) -> Cell:
    errors = tuple(cell.errors[cell.seeds.index(seed)] for seed in seeds)
    return Cell(cell.column, statistics.fmean(errors), spread_of(errors), tuple(seeds), errors)


def _difference(
    results: Sequence[Result], others: Mapping[int, float], *, against: str = BASELINE
) -> Difference | None:
    paired = [result for result in results if result.seed in others]
    if not paired:
        return None
    values = tuple(result.error - others[result.seed] for result in paired)
    seeds = tuple(result.seed for result in paired)
    return Difference(paired[0].column, statistics.fmean(values), interval_of(values), seeds, values, against)
