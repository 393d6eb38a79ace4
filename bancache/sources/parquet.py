"""Parquet files in the layouts of the Hugging Face Hub: encoded images, labels, class names in the schema.

Strings are labels too: the classes are then the sorted strings. ``datasets.save_to_disk`` writes the same columns as Arrow
streams, which are read as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.arrow_files import batches, naming, table, values_of
from bancache.sources.columns import REWRITE, choices, image_column, image_columns, label_column
from bancache.sources.decoded import open_kept
from bancache.sources.image_set import ImageSet, numbered_classes
from bancache.sources.nearest import listing
from bancache.sources.pictures import Encoded, Pictures
from bancache.sources.request import SPLITS, Request
from bancache.sources.rows import Rows
from bancache.sources.splits import SPLIT_NAMES, choose_test_split
from bancache.system.wording import count


def open_images(request: Request) -> ImageSet:
    """Return a split, its files in the order of their names; pyarrow is imported only to decode."""
    encoded = find(request)
    return open_kept(request, encoded.files, encoded.read)


def find(request: Request) -> Encoded:
    """Return the files of a split; none of their pictures is read."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    by_split = {split: _find_files(request, place, split) for split in SPLITS}
    if not by_split[request.split]:
        first, *more = SPLIT_NAMES[request.split]
        raise DataError(
            f"{request.name}: no {first}-*.parquet, nor {', '.join(more)}; {listing(place)}",
            hint=f"{request.other_kind()}{_deeper(place)}name them train-*.parquet, train.parquet or train/*.parquet, here or in data/",
        )
    # The key covers the files of both splits, because classes and the range of 16-bit pictures depend on both.
    files = [file for split in SPLITS for file in by_split[split]]
    return Encoded(files, lambda: _pictures(request, by_split))


def _find_files(request: Request, place: Path, split: str) -> list[Path]:
    """Return the files of a split; test files without labels are passed over where others have some."""
    found: list[tuple[str, list[Path]]] = []
    for directory in (place, place / "data", place / "default"):
        for name in SPLIT_NAMES[split]:
            patterns = (f"{name}-*.parquet", f"{name}.parquet", f"{name}/*.parquet", f"{name}/data-*.arrow")
            found += [(name, files) for p in patterns if (files := sorted(directory.glob(p)))]
    if not found:
        return []
    chosen = found[0]
    if split == "test" and len(found) > 1:
        labeled = [one for one in found if _has_labels(request, one[1])] or found
        wanted = choose_test_split(request.name, [name for name, _ in labeled])
        chosen = next(one for one in labeled if one[0] == wanted)
    _check_complete(request, chosen[1])
    shown, *others = [
        str(files[0].relative_to(place)) for _, files in (chosen, *(o for o in found if o is not chosen))
    ]
    request.note_split(split, re.sub("^(data|default)/", "", shown), others)
    return chosen[1]


def _deeper(place: Path) -> str:
    """Return the beginning of a hint that names a folder of a configuration, such as ``plain_text``, which has such files."""
    usual = {"data", "default", *(name for names in SPLIT_NAMES.values() for name in names)}
    for file in sorted(place.glob("*/*.parquet")):
        if file.parent.name not in usual:
            return f"did you mean --data {shlex.quote(f'parquet:{file.parent}')}? Or "
    return ""


def _has_labels(request: Request, files: Sequence[Path]) -> bool:
    """Return whether a label is not -1, the Hub's mark of a test split without labels."""
    labels = _raw_labels(request, files[:1])
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
    label, classes = label_column(request, chosen[0])
    notes = list(choices(request, chosen[0]))
    for file in (*chosen[1:], *other):
        column, names = label_column(request, file)
        if names and names != classes:
            raise DataError(
                f"{request.name}: {file.name} has other class names than {chosen[0].name}", hint=REWRITE
            )
        if column != label:
            notes.append(
                f"{request.name}: the labels of {file.name} are those of column {column}, of {chosen[0].name} {label}"
            )
    labels = _raw_labels(request, chosen)
    numbered = labels.dtype.kind in "iu"
    if classes is None or not numbered:
        everywhere = [labels, *([_raw_labels(request, other)] if other else [])]
        _require_one_kind(request, everywhere)
        if numbered:
            classes = numbered_classes(np.concatenate(everywhere).astype(np.int64), request.name)
        else:
            classes = tuple(sorted({name for part in everywhere for name in part.tolist()}))
            number = {name: index for index, name in enumerate(classes)}
            labels = np.array([number[name] for name in labels.tolist()])
    return Pictures(
        labels.astype(np.int64),
        classes,
        lambda: _stream(request, chosen),
        lambda: _stream(request, other),
        tuple(notes),
        at=Rows([(file, _path_of(file, image_column(request, chosen[0]))) for file in chosen]),
    )


def _require_one_kind(request: Request, parts: Sequence[NDArray[Any]]) -> None:
    if len({part.dtype.kind in "iu" for part in parts}) > 1:
        raise DataError(
            f"{request.name}: the label is a number in one file and a string in another",
            hint="write all files in the same way",
        )


def _raw_labels(request: Request, files: Sequence[Path]) -> NDArray[Any]:
    """Return the label column of all files: integers or strings, ``(N,)``."""
    parts = []
    for file in files:
        name = label_column(request, file)[0]
        with naming(file):
            column = table(file, name).column(name)
        values = _values(column)
        missing = column.null_count or sum(value is None for value in values if values.dtype == object)
        if missing:
            raise DataError(f"{file}: {count(missing, 'row')} without a {name}", hint="remove those rows")
        parts.append(values)
    _require_one_kind(request, parts)
    return np.concatenate(parts)


def _values(column: Any) -> NDArray[Any]:
    """Return a column, true as 1; equal strings are one object, whatever their length and number."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not pa.types.is_dictionary(column.type) or column.null_count:
        return np.asarray(column.to_numpy())
    parts = [np.array(c.dictionary.to_pylist(), object)[c.indices.to_numpy()] for c in column.chunks]
    return np.concatenate([np.array([], object), *parts])


def _stream(request: Request, files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    name = image_column(request, files[0]) if files else ""
    for file in files:
        path, row = _path_of(file, name), 0
        with naming(file):
            for batch in batches(file, path):
                for value in values_of(batch, path):
                    yield f"{file} row {row}", value.as_py() or b""
                    row += 1


def _path_of(file: Path, name: str) -> str:
    """Return the column of a file that holds the bytes of images; one file may hold structs and another one bytes."""
    structs, plain = image_columns(file)
    if name not in (*structs, *plain):
        raise DataError(f"{file} has no column {name} of images", hint=REWRITE)
    return f"{name}.bytes" if name in structs else name
