"""Parquet files and Arrow streams: schemas, columns and batches, within the bounds of what a file says of itself."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.system.memory import free_on_host, require_memory

_ROWS = 256  # how many encoded images are in memory at once
# Pictures are compressed already and do not shrink that much; a small file may say anything.
_MOST_SHRUNK, _SMALL = 1000, 1 << 16


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Turn the errors of pyarrow into ones that name the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{file} cannot be read: {reason}", hint="fetch the file again") from error


def schema(file: Path) -> Any:
    """Return the schema of a file."""
    import pyarrow.parquet

    with naming(file):
        if file.suffix == ".arrow":
            with _stream(file) as stream:
                return stream.schema
        return pyarrow.parquet.read_schema(file)


def table(file: Path, column: str) -> Any:
    """Return a table of one column, whose strings stay in a dictionary."""
    if file.suffix == ".arrow":
        with _stream(file) as stream:
            return stream.read_all().select([column])
    reader, _ = _open_bounded(file, read_dictionary=[column])
    with reader:
        return reader.read(columns=[column])


def batches(file: Path, column: str) -> Iterator[Any]:
    """Yield record batches; of a struct only the bytes are read, not the file names beside them."""
    if file.suffix == ".arrow":
        with _stream(file) as stream:
            yield from stream
        return
    reader, largest = _open_bounded(file)
    # One page may hold a picture once for all rows that show it, so a row may be as large as the whole row group.
    rows = min(_ROWS, max(1, free_on_host() // 4 // max(1, largest)))
    with reader:
        yield from reader.iter_batches(rows, columns=[column])


def values_of(batch: Any, path: str) -> Any:
    """Return the bytes of images in a record batch that has a column ``NAME`` of bytes, or of structs: ``NAME.bytes``."""
    name = path.removesuffix(".bytes") if path not in batch.schema.names else path
    column = batch.column(batch.schema.get_field_index(name))
    return column if name == path else column.field("bytes")


def group_rows(file: Path) -> list[int]:
    """Return the number of rows of each part of a file that is read at once: of each row group, or of a batch."""
    with naming(file):
        if file.suffix == ".arrow":
            with _stream(file) as stream:
                return [batch.num_rows for batch in stream]
        reader, _ = _open_bounded(file)
        with reader:
            says = reader.metadata
            return [says.row_group(index).num_rows for index in range(says.num_row_groups)]


def read_group(file: Path, group: int, path: str) -> list[Any]:
    """Return the images of one of these parts, bytes or None each, as pyarrow's values."""
    with naming(file):
        if file.suffix == ".arrow":
            with _stream(file) as stream:
                return list(values_of(next(itertools.islice(stream, group, None)), path))
        reader, _ = _open_bounded(file)
        with reader:
            read = reader.read_row_group(group, columns=[path]).to_batches()
            return [value for batch in read for value in values_of(batch, path)]


@contextlib.contextmanager
def _stream(file: Path) -> Iterator[Any]:
    """Open an Arrow stream, mapped from its file."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        yield pa.ipc.open_stream(source)


def _open_bounded(file: Path, **options: Any) -> tuple[Any, int]:
    """Open a parquet file whose claims are possible; return it, and the bytes of its largest row group."""
    import pyarrow.parquet

    reader = pyarrow.parquet.ParquetFile(file, **options)
    says, held = reader.metadata, file.stat().st_size
    groups = [says.row_group(index) for index in range(says.num_row_groups)]
    rows = max(says.num_rows, sum(group.num_rows for group in groups))
    if rows > held:
        raise DataError(
            f"{file} says that it has {rows:,} rows in {held:,} bytes", hint="fetch the file again"
        )
    # The same number for a column would be closer, but pyarrow ends the process where a column's metadata is damaged.
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > _MOST_SHRUNK * max(held, _SMALL):
        raise DataError(
            f"{file} says that a row group has {largest:,} bytes, in a file of {held:,}",
            hint="fetch the file again",
        )
    require_memory(
        largest, f"the {largest:,} bytes that {file} claims for one row group", hint="write smaller ones"
    )
    return reader, largest
