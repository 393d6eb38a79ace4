"""What the page's lists are made of: columns, headings, names with values, numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bancache.report.families import number
from bancache.report.markup import Markup, element

_HASH_DIGITS = 32


@dataclass(frozen=True)
class Column:
    """One column of a listing: its head, and a text or nothing for each line."""

    head: str
    values: Sequence[str | None]
    kind: Literal["text", "number", "bar"] = "number"


def listing(label: str, columns: Sequence[Column]) -> Markup | None:
    """Lay columns out as a table in a box of its own that scrolls; the first one names the lines.

    Columns without any value are left out.
    """
    shown = [column for column in columns if any(value is not None for value in column.values)]
    if not shown:
        return None
    head = [element("th", column.head, class_=column.kind, scope="col") for column in shown]
    names = [element("th", name, class_=shown[0].kind, scope="row") for name in shown[0].values]
    cells = [[_cell(column, value) for value in column.values] for column in shown[1:]]
    lines = zip(names, *cells, strict=True)
    return boxed(label, element("tr", *head), [element("tr", *line) for line in lines])


def boxed(label: str, head: Markup, lines: Sequence[Markup]) -> Markup:
    """Put a table into a box that scrolls by itself, also by keyboard, so that the page never does."""
    table = element("table", element("thead", head), element("tbody", *lines))
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def section(title: str, *content: Markup | None, note: str = "") -> Markup | None:
    """Put a heading over what there is; nothing where there is nothing."""
    there = [piece for piece in content if piece]
    if not there:
        return None
    said = element("p", note, class_="note") if note else Markup("")
    return element("section", element("h2", title), said, *there)


def definitions(pairs: Mapping[str, str]) -> Markup | None:
    """Lay out names and what they stand for; nothing where there are none."""
    there = {name: value for name, value in pairs.items() if value}
    if not there:
        return None
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in there.items()),
        class_="facts",
    )


def short(value: object) -> str | None:
    """Write a value in few words: a float in six digits, a long hash by its beginning."""
    if value is None:
        return None
    if isinstance(value, dict):
        return str(value.get("id") or value.get("name") or ", ".join(f"{k} {v}" for k, v in value.items()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(str(short(inner)) for inner in value)
    text = str(value)
    is_hash = len(text) >= _HASH_DIGITS and all(char in "0123456789abcdef" for char in text)
    return f"{text[:12]}…" if is_hash else text


def decimals(value: object, form: str) -> str | None:
    """Write a number in the given format; nothing for what is no number."""
    amount = number(value)
    return None if amount is None else format(amount, form)


def count(value: object) -> str | None:
    """Write a number without decimals and with commas."""
    return decimals(value, ",.0f")


def scientific(amount: float) -> str:
    """Write a small number as 2.3 × 10⁻⁴."""
    if amount == 0:
        return "0"
    digits, power = f"{amount:.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def size(value: object) -> str | None:
    """Write a number of bytes in the unit that fits."""
    amount = number(value)
    if amount is None:
        return None
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def duration(value: object) -> str | None:
    """Write a number of seconds as people say it."""
    seconds = number(value)
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _cell(column: Column, value: str | None) -> Markup:
    return element("td", "" if value is None else value, class_=column.kind)
