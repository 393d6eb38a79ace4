"""Parquet files in the layout of the Hugging Face Hub: encoded images, integer labels, class names in the schema."""

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
from bancache.sources.decoded import open_kept
from bancache.sources.image_set import ImageSet, numbered_classes
from bancache.sources.pictures import Pictures
from bancache.sources.request import SPLITS, Request

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("fine_label", "label", "labels")
_REWRITE = "write the files again with the datasets library, or without its metadata"
_ROWS = 256  # how many encoded images are in memory at once

# The first pattern that matches anything is the split.
_PATTERNS = {"train": ("train-*.parquet",), "test": ("test-*.parquet", "validation-*.parquet")}


def open_images(request: Request) -> ImageSet:
    """Return a split, its parquet files in the order of their names; pyarrow is imported only to decode."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    by_split = {split: _find_files(request, place, split) for split in SPLITS}
    if not by_split[request.split]:
        patterns = " or ".join(_PATTERNS[request.split])
        raise DataError(
            f"{request.name}: there is no {patterns} in {place} or {place / 'data'}",
            hint="check the path, and that the split was fetched",
        )
    # The key covers the files of both splits, because class names can depend on the other split's labels.
    files = [file for split in SPLITS for file in by_split[split]]
    return open_kept(request, files, lambda: _pictures(request, by_split))


@dataclass(frozen=True)
class _Columns:
    """Which columns hold images and labels.

    Attributes:
        image: Column of encoded bytes, or of structs with a field ``bytes``.
        in_struct: Whether the column holds structs.
        label: Column of integers.
        classes: Class names, if the schema has them.
    """

    image: str
    in_struct: bool
    label: str
    classes: tuple[str, ...] | None


def _find_files(request: Request, place: Path, split: str) -> list[Path]:
    for directory in (place, place / "data"):
        for pattern in _PATTERNS[split]:
            files = sorted(directory.glob(pattern))
            if files:
                _check_complete(request, files)
                return files
    return []


def _check_complete(request: Request, files: Sequence[Path]) -> None:
    """Refuse a split with missing files; their names say how many there are."""
    numbers = [re.search(r"-(\d{5})-of-(\d{5})", file.name) for file in files]
    counted = [(int(n[1]), int(n[2])) for n in numbers if n is not None]
    if not counted:
        return
    expected = [(index, counted[0][1]) for index in range(counted[0][1])]
    if sorted(counted) != expected:
        raise DataError(
            f"{request.name}: {files[0].name} is one of {len(expected)} files, but there are "
            f"{', '.join(file.name for file in files)}",
            hint="download the missing files, or remove the files of another version",
        )


def _pictures(request: Request, by_split: dict[str, list[Path]]) -> Pictures:
    chosen = by_split[request.split]
    columns = _find_columns(request, chosen[0])
    labels = _labels(chosen, columns)
    if columns.classes is None:
        everywhere = [_labels(by_split[split], columns) for split in SPLITS if by_split[split]]
        classes = numbered_classes(np.concatenate(everywhere), request.name)
    else:
        classes = columns.classes
    return Pictures(labels, classes, lambda: _stream(chosen, columns))


def _find_columns(request: Request, file: Path) -> _Columns:
    import pyarrow.parquet

    with _naming(file):
        schema = pyarrow.parquet.read_schema(file)
    structs = [f.name for f in schema if _is_image_struct(f.type)]
    images = structs + [f.name for f in schema if _is_bytes(f.type)]
    integers = [f.name for f in schema if pyarrow.types.is_integer(f.type)]
    image = _choose(request, "image", images, [name for name in _IMAGE_NAMES if name in images])
    label = _choose(request, "label", integers, [name for name in _LABEL_NAMES if name in integers][:1])
    return _Columns(image, image in structs, label, _class_names(file, schema.metadata, label))


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


def _class_names(file: Path, metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    text = (metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"].get(label, {}).get("names", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: its schema's metadata cannot be read: {error!r}", hint=_REWRITE) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file}: the class names in its schema are no list of names: {names!r}", hint=_REWRITE
        )
    return tuple(names) or None


def _labels(files: Sequence[Path], columns: _Columns) -> NDArray[np.int64]:
    import pyarrow.parquet

    parts = []
    for file in files:
        with _naming(file):
            table = pyarrow.parquet.read_table(file, columns=[columns.label])
            column = table.column(columns.label)
        if column.null_count:
            raise DataError(
                f"{file}: {column.null_count} rows have no {columns.label}", hint="remove those rows"
            )
        parts.append(column.to_numpy().astype(np.int64))
    return np.concatenate(parts)


def _stream(files: Sequence[Path], columns: _Columns) -> Iterator[tuple[str, bytes]]:
    import pyarrow.parquet

    for file in files:
        row = 0
        with _naming(file), pyarrow.parquet.ParquetFile(file) as reader:
            # In a struct only the bytes are read, not the file names beside them.
            wanted = f"{columns.image}.bytes" if columns.in_struct else columns.image
            for batch in reader.iter_batches(_ROWS, columns=[wanted]):
                column = batch.column(0)
                for value in column.field("bytes") if columns.in_struct else column:
                    yield _checked(value.as_py(), file, row, columns)
                    row += 1


def _checked(content: bytes | None, file: Path, row: int, columns: _Columns) -> tuple[str, bytes]:
    if content is None:
        raise DataError(
            f"{file.name} row {row}: {columns.image} holds no bytes",
            hint="embed the images: paths are not followed",
        )
    return f"{file} row {row}", content


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, IndexError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{file} cannot be read: {reason}", hint="fetch the file again") from error
