"""The Jinja environments, which escape everything for HTML or for a Markdown table, and the table as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from bancache.report import formats
from bancache.report.arms import ArmTable
from bancache.report.charts import interval_scale, ticks
from bancache.report.families import mean_test, number
from bancache.report.tables import Table

if TYPE_CHECKING:
    from jinja2 import Environment

# Control characters and surrogates make a page invalid; bidirectional controls can make it lie.
_CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0))
_BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)
_UNSAFE = dict.fromkeys((*_CONTROLS, *_BIDIRECTIONAL, *_SURROGATES), "\N{REPLACEMENT CHARACTER}")


def html_text(value: object) -> object:
    """Return a value as a template prints it, before escaping: None as nothing, floats in two decimals."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value if hasattr(value, "__html__") else str(value).translate(_UNSAFE)


def breakable(value: object) -> object:
    """Return a text marked as escaped that may break after each slash, as paths should."""
    from markupsafe import Markup

    return Markup("/<wbr>").join(str(html_text(value)).split("/"))


def markdown_text(value: object) -> object:
    """Return a value as a cell of a Markdown table, marked as escaped."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    text = str(value)
    for special in "\\`*_<>|":
        text = text.replace(special, "\\" + special)
    return Markup(printable(text).replace("](", "]\\("))  # noqa: S704 -- escaped above


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def filled(columns: Iterable[Sequence[Any]]) -> list[tuple[str, list[object], str]]:
    """Return the columns (head, values, kind) that have a value; the kind is ``number`` by default."""
    listed = [(column[0], list(column[1]), column[2] if len(column) > 2 else "number") for column in columns]
    return [column for column in listed if any(value is not None for value in column[1])]


@cache
def environment(kind: str) -> Environment:
    """Return the environment of the templates of a kind, ``html`` or ``md``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("bancache.report"),
        autoescape=True,
        finalize=html_text if kind == "html" else markdown_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (*formats.FILTERS, breakable, filled, interval_scale, mean_test, number, ticks, zip)
    made.filters |= {function.__name__: function for function in filters}
    return made


def to_text(table: Table) -> str:
    """Write the table for a terminal: one line for each column of a row, because six columns do not fit."""
    head = (*table.labels, "name", "error %", "seeds", f"against the {table.reference}, points")
    lines = [head]
    for row in table.rows:
        names = table.names(row)
        for cell in (*row.cells, *row.controls):
            difference = row.difference(cell.column)
            shown = formats.difference_text(difference) if difference else ""
            lines.append((*names, cell.column, formats.cell_text(cell), str(len(cell.seeds)), shown))
            names = ("",) * len(names)
    for row in table.rows:
        names = table.names(row) if len(table.rows) > 1 else ("",) * len(table.labels)
        for difference in row.control_differences:
            pair = f"{difference.ours.column} against {difference.theirs.column}"
            lines.append((*names, pair, "", str(len(difference.values)), formats.difference_text(difference)))
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    clean = [[printable(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in clean)
    return "".join(f"{line}\n" for line in padded)


def to_markdown(table: Table) -> str:
    """Write the table in the paper's shape in Markdown, and under it the differences to baseline and controls."""
    return environment("md").get_template("table.md.j2").render(table=table)


def arms_to_text(table: ArmTable) -> str:
    """Write the table of a study for a terminal."""
    lines = [("arm", "error %", "seeds", f"against {table.baseline}, points", "missing seeds")]
    for row in table.rows:
        cell, difference = row.cell, row.difference
        lines.append(
            (
                row.name,
                formats.cell_text(cell) if cell else "",
                str(len(cell.seeds)) if cell else "0",
                formats.difference_text(difference) if difference else "",
                ", ".join(map(str, row.missing)),
            )
        )
    return _aligned(lines)


def arms_to_markdown(table: ArmTable) -> str:
    """Write the table of a study in Markdown: every arm, and what is missing."""
    return environment("md").get_template("arms.md.j2").render(arms=table)


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
