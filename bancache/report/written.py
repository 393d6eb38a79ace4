"""The table as it is written: for a terminal, in Markdown, as rows of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bancache.report.tables import Difference, Row, Table, cell_text, difference_text


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
        lines += [(*names, cell.column, cell_text(cell), str(len(cell.seeds)), "") for cell in row.controls]
    for row in table.rows:
        names = table.names(row) if len(table.rows) > 1 else ("",) * len(table.labels)
        for difference in row.control_differences:
            pair = f"{difference.column} against {difference.against}"
            lines.append((*names, pair, "", str(len(difference.seeds)), difference_text(difference)))
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
    text = f"Test error in %, mean ± spread over seeds (number of seeds).\n\n{errors}"
    differences = [[*table.names(row), *_difference_cells(d)] for row in table.rows for d in row.differences]
    if differences:
        head = [*table.labels, "net", "against the baseline", "seeds"]
        text += "\nDifference in percentage points, paired by seed: mean [95 % confidence interval].\n\n"
        text += _markdown(head, differences, numbers=2)
    controls = [
        [*table.names(row), *_control_cells(row, d)] for row in table.rows for d in row.control_differences
    ]
    if controls:
        head = [*table.labels, "net", "control", "error", "control's error", "difference", "seeds"]
        text += "\nAgainst nets without a teacher, on the seeds that have both.\n\n"
        text += _markdown(head, controls, numbers=4)
    return text


def _difference_cells(difference: Difference) -> list[str]:
    return [difference.column, difference_text(difference), str(len(difference.seeds))]


def _control_cells(row: Row, difference: Difference) -> list[str]:
    net, control = row.both(difference)
    shown = difference_text(difference)
    return [net.column, control.column, cell_text(net), cell_text(control), shown, str(len(net.seeds))]


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
