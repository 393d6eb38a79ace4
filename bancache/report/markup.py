"""HTML and SVG built so that every text is escaped and every tag is closed.

>>> element("p", "1 < 2, ", element("b", "so"), class_="note")
'<p class="note">1 &lt; 2, <b>so</b></p>'
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"meta", "br", "hr", "img"})

# Control characters and halves of characters make a page invalid; those that turn the direction of writing
# can make it lie.
_CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0))
_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HALVES = range(0xD800, 0xE000)
_UNSAFE = dict.fromkeys((*_CONTROLS, *_TURNS, *_HALVES), "\N{REPLACEMENT CHARACTER}")


class Markup(str):
    """Text that is HTML already; only this module and constants of the page make it from raw text."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Give the text as it is safe between tags and inside quoted attributes."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text).translate(_UNSAFE)))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Give one element; children that are not markup are escaped.

    ``class_`` means ``class`` and ``stroke_width`` means ``stroke-width``. An attribute that is None is left
    out, floats are written with at most two decimals.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Put pieces one after the other, escaping those that are not markup."""
    return Markup("".join(escape(child) for child in children))


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value
