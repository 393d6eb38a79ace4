"""The Jinja environments: HTML with everything escaped, Markdown with everything escaped for a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from bancache.report import formats
from bancache.report.charts import interval_scale
from bancache.report.families import number

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
    made.filters |= {
        function.__name__: function for function in (*formats.FILTERS, filled, interval_scale, number)
    }
    return made
