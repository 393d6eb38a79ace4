"""Views of a few training images as a student sees them, with the soft targets that the cache holds for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.report.families import number
from bancache.system.files import read_json

_LIMIT = 16 << 20
# What a PNG begins with, in base64, and nothing that could end an attribute.
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")


def read_views(folder: Path) -> Mapping[str, Any] | None:
    """Read the sample views of the first seed beside its results; None if there are none.

    Raises:
        DataError: The file is not JSON.
    """
    found = sorted(
        folder.glob("seed*/views.json"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    if not found:
        return None
    views = read_json(found[0], limit=_LIMIT, error=DataError, hint="remove it; the page does without")
    return views if isinstance(views, dict) else None


def clean_views(views: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the images that have a view with a PNG; anything malformed is left out."""
    images = [
        {**image, "views": [_view(view) for view in _dicts(image, "views") if _has_png(view)]}
        for image in _dicts(views or {}, "images")
    ]
    return [image for image in images if image["views"]]


def _view(view: Mapping[str, Any]) -> dict[str, Any]:
    pairs = view.get("top")
    named = (
        [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2]
        if isinstance(pairs, list)
        else []
    )
    top = [(str(name), share) for name, value in named if (share := number(value)) is not None]
    return {**view, "top": top}


def _has_png(view: Mapping[str, Any]) -> bool:
    png = view.get("png")
    return isinstance(png, str) and _PNG.fullmatch(png) is not None


def _dicts(value: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    values = value.get(name)
    return (one for one in (values if isinstance(values, list) else ()) if isinstance(one, dict))
