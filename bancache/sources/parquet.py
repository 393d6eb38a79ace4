"""Parquet files in the layouts of the Hugging Face Hub: encoded images, labels, class names in the schema.

Labels are the column that the schema calls a class label, or one with a usual name; no other column is taken for one.
Strings are labels too: the classes are then the sorted strings. ``datasets.save_to_disk`` writes the same columns as Arrow
streams, which are read as well.
"""

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
from bancache.sources.nearest import listing
from bancache.sources.pictures import Pictures
from bancache.sources.request import SPLITS, Request

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("fine_label", "label", "labels", "target", "class", "cls")
_REWRITE = "write the files again with the datasets library, or without its metadata"
_ROWS = 256  # how many encoded images are in memory at once

# The usual names of a split, the preferred one first.
_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


def open_images(request: Request) -> ImageSet:
    """Return a split, its files in the order of their names; pyarrow is imported only to decode."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    by_split = {split: _find_files(request, place, split) for split in SPLITS}
    if not by_split[request.split]:
        wanted = " or ".join(f"{name}-*.parquet" for name in _SPLIT_NAMES[request.split])
        raise DataError(
            f"{request.name}: no {wanted}; {listing(place)}",
            hint=f"{request.other_kind()}name them train-*.parquet, train.parquet or train/*.parquet, here or in data/",
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
        label: Column of integers or strings.
        classes: Class names, if the schema has them.
    """

    image: str
    in_struct: bool
    label: str
    classes: tuple[str, ...] | None


def _find_files(request: Request, place: Path, split: str) -> list[Path]:
    """Return the files of a split; test files without labels are passed over where others have some."""
    unlabeled: list[Path] = []
    for directory in (place, place / "data", place / "default"):
        for name in _SPLIT_NAMES[split]:
            patterns = (f"{name}-*.parquet", f"{name}.parquet", f"{name}/*.parquet", f"{name}/data-*.arrow")
            files = next((found for p in patterns if (found := sorted(directory.glob(p)))), [])
            if not files:
                continue
            _check_complete(request, files)
            if split == "train" or _has_labels(request, files):
                return files
            unlabeled = unlabeled or files
    return unlabeled


def _has_labels(request: Request, files: Sequence[Path]) -> bool:
    """Return whether a label is not -1, the Hub's mark of a test split without labels."""
    labels = _raw_labels(files[:1], _find_columns(request, files[0]))
    return labels.dtype.kind not in "iu" or bool((labels != -1).any())


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
    other = [file for split in SPLITS if split != request.split for file in by_split[split]]
    columns = _find_columns(request, chosen[0])
    labels, classes = _raw_labels(chosen, columns), columns.classes
    numbered = labels.dtype.kind in "iu"
    if classes is None or not numbered:
        everywhere = np.concatenate([labels, *([_raw_labels(other, columns)] if other else [])])
        if numbered != (everywhere.dtype.kind in "iu"):
            raise DataError(
                f"{request.name}: column {columns.label} holds numbers in one split and strings in the other",
                hint="write both splits in the same way",
            )
        if numbered:
            classes = numbered_classes(everywhere.astype(np.int64), request.name)
        else:
            classes = tuple(sorted(map(str, set(everywhere.tolist()))))
            number = {name: index for index, name in enumerate(classes)}
            labels = np.array([number[str(name)] for name in labels.tolist()])
    return Pictures(
        labels.astype(np.int64), classes, lambda: _stream(chosen, columns), lambda: _stream(other, columns)
    )


def _find_columns(request: Request, file: Path) -> _Columns:
    import pyarrow as pa

    with _naming(file):
        schema = _schema(file)
    structs = [f.name for f in schema if _is_image_struct(f.type)]
    images = structs + [f.name for f in schema if _is_bytes(f.type)]
    marked = [name for name in schema.names if _is_class_label(file, schema.metadata, name)]
    kinds = {f.name: f.type for f in schema}
    usable = [n for n, kind in kinds.items() if pa.types.is_integer(kind) or _is_text(kind)]
    label = _choose(request, "label", [name for name in marked if name in usable], usable)
    image = _choose(request, "image", [name for name in _IMAGE_NAMES if name in images], images)
    return _Columns(image, image in structs, label, _class_names(file, schema.metadata, label))


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


def _choose(request: Request, what: str, preferred: list[str], usable: list[str]) -> str:
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
    found = ", ".join(preferred or usable) or "none"
    raise DataError(
        f"{request.name}: which column is the {what}? candidates: {found}",
        hint=f"name the column {' or '.join(known)}",
    )


def _features(file: Path, metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Return what the datasets library says of each column, empty for a file without its metadata."""
    text = (metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        return {name: dict(value) for name, value in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: its schema's metadata cannot be read: {error!r}", hint=_REWRITE) from error


def _is_class_label(file: Path, metadata: dict[bytes, bytes] | None, column: str) -> bool:
    return bool(_features(file, metadata).get(column, {}).get("_type") == "ClassLabel")


def _class_names(file: Path, metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    names = _features(file, metadata).get(label, {}).get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file}: the class names in its schema are no list of names: {names!r}", hint=_REWRITE
        )
    return tuple(names) or None


def _raw_labels(files: Sequence[Path], columns: _Columns) -> NDArray[Any]:
    """Return the label column of all files: integers or strings, ``(N,)``."""
    parts = []
    for file in files:
        with _naming(file):
            column = _table(file, columns.label).column(columns.label)
        if column.null_count:
            raise DataError(
                f"{file}: {column.null_count} rows have no {columns.label}", hint="remove those rows"
            )
        parts.append(column.to_numpy())
    return np.concatenate(parts)


def _stream(files: Sequence[Path], columns: _Columns) -> Iterator[tuple[str, bytes]]:
    for file in files:
        row = 0
        with _naming(file):
            for batch in _batches(file, columns):
                column = batch.column(batch.schema.get_field_index(columns.image))
                for value in column.field("bytes") if columns.in_struct else column:
                    yield f"{file} row {row}", value.as_py() or b""
                    row += 1


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet

    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_stream(source).schema
    return pyarrow.parquet.read_schema(file)


def _table(file: Path, column: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet

    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_stream(source).read_all().select([column])
    return pyarrow.parquet.read_table(file, columns=[column])


def _batches(file: Path, columns: _Columns) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet

    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as source:
            yield from pa.ipc.open_stream(source)
        return
    # In a struct only the bytes are read, not the file names beside them.
    wanted = f"{columns.image}.bytes" if columns.in_struct else columns.image
    with pyarrow.parquet.ParquetFile(file) as reader:
        yield from reader.iter_batches(_ROWS, columns=[wanted])


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, IndexError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{file} cannot be read: {reason}", hint="fetch the file again") from error
