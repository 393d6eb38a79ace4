"""The part of the page that shows what a cache holds: views as students see them, the teacher's answer beside each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.report.families import BASELINE, number
from bancache.report.finding import percent
from bancache.report.listings import section
from bancache.report.markup import Markup, element
from bancache.system.files import read_json

_LIMIT = 16 << 20
# What a PNG begins with, in base64, and nothing that could end an attribute.
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")


def read_sheet(folder: Path) -> Mapping[str, Any] | None:
    """Read the views that the first seed of a study left beside its results; None where there are none.

    Raises:
        DataError: The file is not JSON.
    """
    found = sorted(
        folder.glob("seed*/views.json"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    if not found:
        return None
    sheet = read_json(found[0], limit=_LIMIT, error=DataError, hint="remove it; the page does without")
    return sheet if isinstance(sheet, dict) else None


def sheet_section(sheet: Mapping[str, Any] | None) -> Markup | None:
    """Show each image's views with the teacher's likeliest classes."""
    if sheet is None:
        return None
    rows = [row for image in _dicts(sheet.get("images")) if (row := _row(image))]
    generation = sheet.get("generation")
    teacher = f"BAN-{generation}" if generation else f"the {BASELINE}"
    note = (
        f"Training images exactly as a student sees them, and what {teacher} answered to each view, read back "
        "from its cache: the five likeliest classes in %. The image's own class is set in bold."
    )
    return section("What the cache holds", *rows, note=note)


def _row(image: Mapping[str, Any]) -> Markup | None:
    label = str(image.get("label", ""))
    shots = [shot for view in _dicts(image.get("views")) if (shot := _shot(view, label))]
    if not shots:
        return None
    name = element("h3", f"Image {image.get('sample', '?')}, class {label}")
    return element("div", name, element("div", *shots, class_="shots"), class_="sample")


def _shot(view: Mapping[str, Any], label: str) -> Markup | None:
    png = view.get("png")
    if not isinstance(png, str) or not _PNG.fullmatch(png):
        return None
    named = f"{label}, view {view.get('view', '?')}"
    image = element("img", src=f"data:image/png;base64,{png}", alt=named, title=named)
    answers = view.get("top")
    top = [pair for pair in answers if _is_pair(pair)] if isinstance(answers, list) else []
    lines = [_answer(str(name), share, label) for name, value in top if (share := number(value)) is not None]
    return element("div", image, element("ol", *lines), class_="shot")


def _answer(name: str, share: float, label: str) -> Markup:
    bar = element("rect", class_="bar", width=100 * share, height=3)
    drawn = element("svg", bar, viewBox="0 0 100 3", preserveAspectRatio="none", aria_hidden="true")
    words = element("b" if name == label else "span", name)
    return element(
        "li",
        words,
        element("small", "< 1\N{NO-BREAK SPACE}%" if 0 < share < 0.005 else percent(share, 0)),
        drawn,
        class_="s2" if name == label else "s0",
    )


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _dicts(values: object) -> Sequence[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
