"""Which columns of a Parquet or Arrow file hold images and labels.

Labels are the column that the schema calls a class label, or one with a usual name; no other column is taken for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.sources.arrow_files import naming, schema
from bancache.sources.request import Request

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("fine_label", "label", "labels", "target", "class", "cls")
_HELD = {"image": "encoded bytes, or structs with them", "label": "integers, strings, or true and false"}
_LISTED = 8
_LIKE_LABEL = re.compile("label|target|class|cls", re.IGNORECASE)
REWRITE = "write the files again with the datasets library, or without its metadata"


def choices(request: Request, file: Path) -> Iterator[str]:
    """Yield what was decided where several columns could hold images or labels."""
    (image, images), (label, labels) = image_columns(file), _label_columns(file)
    chosen = {"images": (image_column(request, file), {*image, *images})}
    chosen["labels"] = (
        label_column(request, file)[0],
        {*label, *(n for n in labels if _LIKE_LABEL.search(n))},
    )
    for what, (name, candidates) in chosen.items():
        if others := sorted(candidates - {name}):
            yield f"{request.name}: the {what} are those of column {name}; left out {', '.join(others)}"


def image_columns(file: Path) -> tuple[list[str], list[str]]:
    """Return the columns of structs with encoded bytes, and those of bytes."""
    fields = schema(file)
    with naming(file):  # names are decoded when they are read
        structs = [f.name for f in fields if _is_image_struct(f.type)]
        return structs, [f.name for f in fields if _is_bytes(f.type)]


def image_column(request: Request, file: Path) -> str:
    """Return the column with encoded images."""
    structs, plain = image_columns(file)
    usable = structs + plain
    return _choose(request, "image", [name for name in _IMAGE_NAMES if name in usable], usable, file)


def _label_columns(file: Path) -> tuple[list[str], list[str]]:
    """Return the columns that the schema calls class labels, and all that could hold labels."""
    import pyarrow as pa

    fields = schema(file)
    with naming(file):
        kinds = (pa.types.is_integer, pa.types.is_boolean, _is_text)
        usable = [f.name for f in fields if any(is_kind(f.type) for is_kind in kinds)]
    return [name for name in usable if _features(file).get(name, {}).get("_type") == "ClassLabel"], usable


def label_column(request: Request, file: Path) -> tuple[str, tuple[str, ...] | None]:
    """Return the column of labels, integers or strings, and the class names, if the schema has them."""
    marked, usable = _label_columns(file)
    label = _choose(request, "label", marked, usable, file)
    return label, class_names(file, label)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and any(c.name == "bytes" and _is_bytes(c.type) for c in kind)


def _choose(request: Request, what: str, preferred: list[str], usable: list[str], file: Path) -> str:
    """Return the column of images or labels; a label column must be marked or have a usual name."""
    known = _IMAGE_NAMES if what == "image" else _LABEL_NAMES
    named = [name for name in known if name in usable]
    candidates = [preferred, named[:1]] if what == "label" else [preferred, usable]
    for names in candidates:
        if len(names) == 1:
            return names[0]
    best = next((name for name in named if name in preferred), None) if what == "label" else None
    if best is not None:
        return best
    found = ", ".join(preferred or usable) or f"none; {file.name} has {_listing(file)}"
    odd = next((name for name in known if name in schema(file).names and name not in usable), None)
    raise DataError(
        f"{request.name}: which column is the {what}? candidates: {found}",
        hint=f"name the column {' or '.join(known)}" if odd is None else f"let {odd} hold {_HELD[what]}",
    )


def _listing(file: Path) -> str:
    """Return the first columns of a file and their types."""
    fields = list(schema(file))
    with naming(file):
        shown = [f"{field.name} ({str(field.type)[:30]})" for field in fields[:_LISTED]]
    return ", ".join(shown) + (", …" if len(fields) > _LISTED else "") if fields else "no columns"


def _features(file: Path) -> dict[str, Any]:
    """Return what the datasets library says of each column, empty for a file without its metadata."""
    text = (schema(file).metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        return {name: dict(value) for name, value in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: its schema's metadata cannot be read: {error!r}", hint=REWRITE) from error


def class_names(file: Path, label: str) -> tuple[str, ...] | None:
    """Return the class names in a file's schema, if it has some."""
    names = _features(file).get(label, {}).get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file}: the class names in its schema are no list of names: {names!r}", hint=REWRITE
        )
    return tuple(names) or None
