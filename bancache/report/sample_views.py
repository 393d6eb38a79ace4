"""Views of a few training images as a student sees them, with the soft targets that the cache holds for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.report.families import dicts_in, list_in, number
from bancache.system.files import read_json

_LIMIT = 16 << 20
# What a PNG begins with, in base64, and nothing that could end an attribute.
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")


def read_views(folder: Path) -> Mapping[str, Any] | None:
    """Read the sample views of the first seed beside its results; None if there are none."""
    found = sorted(
        folder.glob("seed*/views.json"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    if not found:
        return None
    views = read_json(found[0], limit=_LIMIT, error=DataError, hint="remove it; the page does without")
    return views if isinstance(views, dict) else None


def clean_views(views: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the images that have a view with a PNG; anything malformed is left out."""
    images = []
    for image in dicts_in(dict(views or {}), "images"):
        shown = [view for view in map(_view, dicts_in(image, "views")) if view]
        if shown:
            name = {"sample": image.get("sample", "?"), "label": str(image.get("label", ""))}
            images.append({**name, "views": shown})
    return images


def _view(view: dict[str, Any]) -> dict[str, Any] | None:
    png = view.get("png")
    if not isinstance(png, str) or not _PNG.fullmatch(png):
        return None
    pairs = [pair for pair in list_in(view, "top") if isinstance(pair, list) and len(pair) == 2]
    named = [(str(name), number(share)) for name, share in pairs]
    top = [pair for pair in named if pair[1] is not None]
    return {
        "view": view.get("view", "?"),
        "params": str(view.get("params", "")),  # older runs have none
        "png": png,
        "top": top,
    }
