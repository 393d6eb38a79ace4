"""The table for a terminal, in Markdown, and as rows for JSON."""

from __future__ import annotations

from typing import Any

from bancache.report.formats import cell_text, difference_text
from bancache.report.rendering import environment, printable
from bancache.report.tables import Table


def to_text(table: Table) -> str:
    """Write the table for a terminal: one line for each column of a row, because six columns do not fit.

    Control characters are replaced.
    """
    head = (*table.labels, "name", "error %", "seeds", "against the baseline, points")
    lines = [head]
    for row in table.rows:
        names = table.names(row)
        for cell in (*row.cells, *row.controls):
            difference = row.difference(cell.column)
            shown = difference_text(difference) if difference else ""
            lines.append((*names, cell.column, cell_text(cell), str(len(cell.seeds)), shown))
            names = ("",) * len(names)
    for row in table.rows:
        names = table.names(row) if len(table.rows) > 1 else ("",) * len(table.labels)
        for difference in row.control_differences:
            pair = f"{difference.ours.column} against {difference.theirs.column}"
            lines.append((*names, pair, "", str(len(difference.values)), difference_text(difference)))
    clean = [[printable(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in clean)
    return "".join(f"{line}\n" for line in padded)


def to_markdown(table: Table) -> str:
    """Write the table in the paper's shape in Markdown, and under it the differences to baseline and controls."""
    return environment("md").get_template("table.md.j2").render(table=table)


def to_rows(table: Table) -> list[dict[str, Any]]:
    """Return one dict for each cell, ready for JSON; errors and differences are fractions of one."""
    return [
        {
            **row.key._asdict(),
            "name": cell.column,
            "error": cell.mean,
            "error_spread": cell.spread,
            "seeds": list(cell.seeds),
            "errors": list(cell.errors),
            "difference": difference and difference.mean,
            "difference_interval": list(difference.interval) if difference and difference.interval else None,
            "difference_seeds": list(difference.ours.seeds) if difference else [],
        }
        for row in table.rows
        for cell in row.cells
        for difference in [row.difference(cell.column)]
    ]
