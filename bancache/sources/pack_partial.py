"""A pack that is being written: its data beside a journal, so that a killed packing goes on where it was.

``NAME.partial`` holds the beginning of the pack. ``NAME.journal`` holds a line of JSON, what is packed and how, and then a
record for each picture. Data are flushed before their records are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bancache.errors import BusyError, DataError, MismatchError, StorageError
from bancache.sources.pack_format import PROLOGUE
from bancache.system.files import storage_errors, sync_directory
from bancache.system.locks import exclusive_file, lock_path

RECORDS = np.dtype([("length", "<i8"), ("height", "<i4"), ("width", "<i4"), ("sha256", "V32")])
_RECORD = struct.Struct("<qii32s")
_FLUSH_BYTES = 1 << 26
_AGAIN = "add --overwrite to begin anew"


class Record(NamedTuple):
    """A picture that is packed; one that was left out has no bytes."""

    length: int
    height: int
    width: int
    sha256: bytes


LEFT_OUT = Record(0, 0, 0, bytes(32))


class Partial:
    """The data and the journal of a pack that is being written.

    Attributes:
        found: How many pictures an earlier run packed or left out, those of the training split first.
        count: How many are packed or left out now.
    """

    def __init__(self, out: Path, data: Any, journal: Any, plan: dict[str, Any]) -> None:
        self._out, self._data, self._journal = out, data, journal
        self._first = json.dumps(plan, sort_keys=True).encode() + b"\n"
        earlier = self._earlier()
        self._records = bytearray(earlier or b"")
        self._flushed, self._unflushed = len(self._records), 0
        self.found = self.count = self._flushed // _RECORD.size
        with storage_errors(partial_path(out)):
            journal.truncate(0 if earlier is None else len(self._first) + self._flushed)
            if earlier is None:
                _write(journal, self._first)
            data.truncate(PROLOGUE.size + int(self.all()["length"].sum()))
            data.seek(0, os.SEEK_END)

    def _earlier(self) -> bytes | None:
        """Return the records of an earlier run whose pictures are there, or None if there was no run."""
        self._journal.seek(0)
        first, end, rest = self._journal.read().partition(b"\n")
        if not end:
            return None
        if first + end != self._first:
            raise MismatchError(
                f"{partial_path(self._out)} was begun with other options, or the pictures have changed since",
                hint=_AGAIN,
            )
        whole: bytes = rest[: len(rest) // _RECORD.size * _RECORD.size]
        lengths = np.frombuffer(whole, RECORDS)["length"]
        ends = PROLOGUE.size + np.cumsum(np.maximum(lengths, 0))
        there = (lengths >= 0) & (ends <= self._data.seek(0, os.SEEK_END))
        count = len(there) if there.all() else int(there.argmin())
        return whole[: count * _RECORD.size]

    def record(self, index: int) -> Record:
        """Return what is known of a picture."""
        return Record(*_RECORD.unpack_from(self._records, index * _RECORD.size))

    def all(self) -> NDArray[Any]:
        """Return all records, ``(count,)`` of ``RECORDS``."""
        return np.frombuffer(bytes(self._records), RECORDS)

    def add(self, record: Record, data: Any = b"") -> None:
        """Append a picture, or the record of one that is left out."""
        with storage_errors(partial_path(self._out)):
            _write(self._data, data)
            self._records += _RECORD.pack(*record)
            self.count += 1
            self._unflushed += record.length
            if self._unflushed >= _FLUSH_BYTES:
                self.flush()

    def flush(self) -> None:
        """Make what was appended durable."""
        with storage_errors(partial_path(self._out)):
            os.fsync(self._data.fileno())
            _write(self._journal, self._records[self._flushed :])
            os.fsync(self._journal.fileno())
        self._flushed, self._unflushed = len(self._records), 0

    def read(self, index: int, start: int) -> NDArray[np.uint8]:
        """Return a picture that was flushed and begins at ``start``; threads may read at once.

        Raises:
            DataError: It is damaged.
        """
        record = self.record(index)
        found = np.frombuffer(os.pread(self._data.fileno(), record.length, start), np.uint8)
        if hashlib.sha256(found.data).digest() != record.sha256:
            raise DataError(f"{partial_path(self._out)}: picture {index:,} is damaged", hint=_AGAIN)
        return found

    def finish(self, index: bytes, prologue: bytes) -> None:
        """Append the index, write the prologue, and give the file its name."""
        self.flush()
        with storage_errors(self._out):
            _write(self._data, index)
            self._data.seek(0)
            _write(self._data, prologue)
            os.fsync(self._data.fileno())
            partial_path(self._out).replace(self._out)
            sync_directory(self._out.parent)
            _remove_journal(self._out)


@contextmanager
def partial(out: Path, plan: dict[str, Any], *, overwrite: bool) -> Iterator[Partial]:
    """Open what an earlier run began, or begin anew.

    Raises:
        BusyError: Another process writes it.
        MismatchError: It was begun with another plan.
        StorageError: The disk is full or failing; what was flushed is kept.
    """
    data, journal = partial_path(out), _journal_path(out)
    with contextlib.ExitStack() as opened:
        opened.enter_context(exclusive_file(out))
        with storage_errors(data):
            if overwrite or not (journal.exists() and data.exists()):
                data.write_bytes(b"")
                journal.write_bytes(b"")
            # Without buffers: closing writes nothing, so it cannot fail on a full disk.
            stream = opened.enter_context(data.open("r+b", buffering=0))
            records = opened.enter_context(journal.open("a+b", buffering=0))
        yield Partial(out, stream, records, plan)


def partial_path(out: Path) -> Path:
    """Return where the beginning of a pack lies."""
    return out.with_name(f"{out.name}.partial")


def remove_rests(out: Path) -> None:
    """Remove journal and lock of a pack that has its name: whoever gave it may have died before."""
    if lock_path(out).exists():
        with contextlib.suppress(BusyError, StorageError), exclusive_file(out):
            pass  # the lock goes as it came
    _remove_journal(out)


def _remove_journal(out: Path) -> None:
    if not partial_path(out).exists():
        _journal_path(out).unlink(missing_ok=True)


def _journal_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.journal")


def _write(stream: Any, data: Any) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]
