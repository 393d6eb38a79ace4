"""Parquet in the layout of the Hugging Face hub: encoded images, integer labels, class names in the schema."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.base import ImageSet, numbered_classes
from bancache.sources.decoded import open_kept
from bancache.sources.pictures import Pictures
from bancache.sources.request import SPLITS, Request

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("fine_label", "label", "labels")
_REWRITE = "write the shards again with the datasets library, or without its metadata"
_ROWS = 256  # how many encoded images are in memory at once

# The first pattern that matches anything is the split.
_PATTERNS = {"train": ("train-*.parquet",), "test": ("test-*.parquet", "validation-*.parquet")}


def open_images(request: Request) -> ImageSet:
    """Return a split, its shards in the order of their names; pyarrow is imported only to decode."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    shards = {split: _find_shards(request, place, split) for split in SPLITS}
    if not shards[request.split]:
        patterns = " or ".join(_PATTERNS[request.split])
        raise DataError(
            f"{request.name}: there is no {patterns} in {place} or {place / 'data'}",
            hint="check the path, and that the split was fetched",
        )
    # All shards make the key, because class names can depend on the other split's labels.
    files = [shard for split in SPLITS for shard in shards[split]]
    return open_kept(request, files, lambda: _pictures(request, shards))


@dataclass(frozen=True)
class _Columns:
    """Which columns hold images and labels.

    Attributes:
        image: Column of encoded bytes, or of structs with a field ``bytes``.
        in_struct: Which of the two it is.
        label: Column of integers.
        classes: Class names, if the schema has them.
    """

    image: str
    in_struct: bool
    label: str
    classes: tuple[str, ...] | None


def _find_shards(request: Request, place: Path, split: str) -> list[Path]:
    for directory in (place, place / "data"):
        for pattern in _PATTERNS[split]:
            shards = sorted(directory.glob(pattern))
            if shards:
                _check_complete(request, shards)
                return shards
    return []


def _check_complete(request: Request, shards: Sequence[Path]) -> None:
    """Refuse a split of which some shards, counted in their names, are not there."""
    numbers = [re.search(r"-(\d{5})-of-(\d{5})", shard.name) for shard in shards]
    counted = [(int(n[1]), int(n[2])) for n in numbers if n is not None]
    if not counted:
        return
    expected = [(index, counted[0][1]) for index in range(counted[0][1])]
    if sorted(counted) != expected:
        raise DataError(
            f"{request.name}: {shards[0].name} promises {len(expected)} shards, but there are "
            f"{', '.join(shard.name for shard in shards)}",
            hint="fetch the missing shards, or remove those of another version",
        )


def _pictures(request: Request, shards: dict[str, list[Path]]) -> Pictures:
    chosen = shards[request.split]
    columns = _find_columns(request, chosen[0])
    labels = _labels(chosen, columns)
    if columns.classes is None:
        everywhere = [_labels(shards[split], columns) for split in SPLITS if shards[split]]
        classes = numbered_classes(np.concatenate(everywhere), request.name)
    else:
        classes = columns.classes
    return Pictures(labels, classes, lambda: _stream(chosen, columns))


def _find_columns(request: Request, shard: Path) -> _Columns:
    import pyarrow.parquet

    with _naming(shard):
        schema = pyarrow.parquet.read_schema(shard)
    structs = [f.name for f in schema if _is_image_struct(f.type)]
    images = structs + [f.name for f in schema if _is_bytes(f.type)]
    integers = [f.name for f in schema if pyarrow.types.is_integer(f.type)]
    image = _choose(request, "image", images, [name for name in _IMAGE_NAMES if name in images])
    label = _choose(request, "label", integers, [name for name in _LABEL_NAMES if name in integers][:1])
    return _Columns(image, image in structs, label, _class_names(shard, schema.metadata, label))


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and any(c.name == "bytes" and _is_bytes(c.type) for c in kind)


def _choose(request: Request, what: str, candidates: list[str], preferred: list[str]) -> str:
    for names in (preferred, candidates):
        if len(names) == 1:
            return names[0]
    found = ", ".join(preferred or candidates) or "none"
    known = _IMAGE_NAMES if what == "image" else _LABEL_NAMES
    raise DataError(
        f"{request.name}: which column is the {what}? candidates: {found}",
        hint=f"name one column {' or '.join(known)}",
    )


def _class_names(shard: Path, metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    text = (metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"].get(label, {}).get("names", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{shard}: its schema's metadata cannot be read: {error!r}", hint=_REWRITE) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{shard}: the class names in its schema are no list of names: {names!r}", hint=_REWRITE
        )
    return tuple(names) or None


def _labels(shards: Sequence[Path], columns: _Columns) -> NDArray[np.int64]:
    import pyarrow.parquet

    parts = []
    for shard in shards:
        with _naming(shard):
            table = pyarrow.parquet.read_table(shard, columns=[columns.label])
            column = table.column(columns.label)
        if column.null_count:
            raise DataError(
                f"{shard}: {column.null_count} rows have no {columns.label}", hint="remove those rows"
            )
        parts.append(column.to_numpy().astype(np.int64))
    return np.concatenate(parts)


def _stream(shards: Sequence[Path], columns: _Columns) -> Iterator[tuple[str, bytes]]:
    import pyarrow.parquet

    for shard in shards:
        row = 0
        with _naming(shard), pyarrow.parquet.ParquetFile(shard) as file:
            # Of a struct only the bytes are read, not the file names beside them.
            wanted = f"{columns.image}.bytes" if columns.in_struct else columns.image
            for batch in file.iter_batches(_ROWS, columns=[wanted]):
                column = batch.column(0)
                for value in column.field("bytes") if columns.in_struct else column:
                    yield _checked(value.as_py(), shard, row, columns)
                    row += 1


def _checked(content: bytes | None, shard: Path, row: int, columns: _Columns) -> tuple[str, bytes]:
    if content is None:
        raise DataError(
            f"{shard.name} row {row}: {columns.image} holds no bytes",
            hint="embed the images, paths are not followed",
        )
    return f"{shard} row {row}", content


@contextlib.contextmanager
def _naming(shard: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, IndexError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{shard} cannot be read: {reason}", hint="fetch the file again") from error
