"""Files of ``torch.save``, read without executing anything, and without more memory than their own size.

Such a file is a pickle and the bytes of its tensors. Sizes in the file are compared with the file's size before any
tensor is read.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bancache.errors import CheckpointError
from bancache.models.pickled import Reader, Storage

_LARGEST_PICKLE = 64 << 20
# Before a record: a signature and facts that the archive's listing repeats, then the lengths of its name and its extra.
_LOCAL_HEADER = struct.Struct("<26sHH")
_MAGIC = 0x1950A86A20F9469CFC6C
# What the standard library's readers raise on bytes that make no sense.
_MALFORMED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError),
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
)  # fmt: skip


@dataclass(frozen=True)
class TorchFile:
    """The content of a file: plain values, Stored, and Unknown; ``unknown`` has the names of classes not read."""

    content: Any
    unknown: tuple[str, ...]


def read_torch_file(path: Path) -> TorchFile:
    """Read a file of ``torch.save``; its tensors are read later, when their ``read`` is called.

    Raises:
        CheckpointError: The file is missing, truncated, changed, TorchScript, or no file of torch.
    """
    try:
        if not path.exists():
            raise CheckpointError(f"{path} is missing")
        if not path.is_file():  # reading a pipe would block
            raise CheckpointError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}")
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except _MALFORMED as error:
        raise damaged(path) from error


def damaged(path: Path) -> CheckpointError:
    """Return the error of a file whose bytes make no sense."""
    return CheckpointError(
        f"{path} is truncated, damaged or not a checkpoint", hint="restore the file, or name another"
    )


def _read_zip(path: Path) -> TorchFile:
    """Read the format of torch since 1.6: a zip archive of a pickle and one record a storage."""
    with zipfile.ZipFile(path) as archive:
        records, size = archive.infolist(), path.stat().st_size
        names = {record.filename.partition("/")[2]: record for record in records}
        if "constants.pkl" in names:
            raise CheckpointError(
                f"{path} is a TorchScript archive, which is a program, not weights",
                hint="where it was made: torch.save(torch.jit.load(FILE).state_dict(), ...)",
            )
        if any(name.endswith("archive_format") for name in names):
            raise CheckpointError(
                f"{path} is an archive of torch.export, a model with its weights",
                hint="call it NAME.pt2 and give it as --teacher NAME.pt2, without --weights",
            )
        if sum(record.file_size for record in records) > size or any(
            record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size
            for record in records
        ):
            raise CheckpointError(
                f"{path} is compressed or damaged: its parts are larger than the file",
                hint="restore it, or name another",
            )
        if "data.pkl" not in names or names["data.pkl"].file_size > _LARGEST_PICKLE:
            raise damaged(path)
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise CheckpointError(f"{path} was written on a big-endian machine", hint="convert it there")
        reader = Reader(io.BytesIO(archive.read(names["data.pkl"])), partial(_read_record, path, names))
        content = reader.load()
    for key, storage in reader.storages.items():
        if storage.bytes > names[f"data/{key}"].file_size:
            raise damaged(path)
    return TorchFile(content, tuple(reader.unknown))


def _read_record(path: Path, names: dict[str, zipfile.ZipInfo], storage: Storage) -> bytearray:
    """Return the bytes of a storage; its checksum is compared here, so that the archive is listed only once."""
    record = names[f"data/{storage.key}"]
    with path.open("rb") as stream:
        stream.seek(record.header_offset)
        try:
            _, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
        except struct.error as error:
            raise damaged(path) from error
        stream.seek(name + extra, os.SEEK_CUR)
        content = bytearray(stream.read(record.file_size))
    if len(content) != record.file_size or zlib.crc32(content) != record.CRC:
        raise CheckpointError(f"{path} is damaged: a checksum in it does not match")
    return content


def _kind_of_text(begin: bytes) -> str:
    if begin.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS"
    return "a web page" if begin.lower().startswith((b"<!doctype html", b"<html")) else "text"


def _read_stream(path: Path) -> TorchFile:
    """Read the format of torch before 1.6: pickles, then storages, each a count and its elements."""
    size, places = path.stat().st_size, dict[str, int]()

    def read(storage: Storage) -> bytearray:
        with path.open("rb") as stream:
            stream.seek(places[storage.key])
            return bytearray(stream.read(storage.bytes))

    with path.open("rb") as stream:
        begin = stream.read(64)
        if begin and begin.isascii() and begin[:8].decode().isprintable():
            # Its text stays untold: a manifest of a stranger's may have named a file that is not theirs to read.
            raise CheckpointError(
                f"{path} is {_kind_of_text(begin)}, not a checkpoint or weights",
                hint="download it again; a pointer of Git LFS becomes its file by `git lfs pull`",
            )
        if begin[:1] != pickle.PROTO:
            raise damaged(path)
        stream.seek(0)
        with suppress(*_MALFORMED):
            if Reader(stream).load() == _MAGIC:
                Reader(stream).load(), Reader(stream).load()  # version and sizes of integers
                reader = Reader(stream, read)
                content = reader.load()
                for key in Reader(stream).load():
                    storage, (count,) = reader.storages[key], struct.unpack("<q", stream.read(8))
                    places[key] = stream.tell()
                    if count != storage.count or stream.seek(storage.bytes, 1) > size:
                        raise damaged(path)
                if places.keys() == reader.storages.keys():
                    return TorchFile(content, tuple(reader.unknown))
            else:
                raise CheckpointError(
                    f"{path} is a pickle, which would execute code, and no file of torch.save; it was not read",
                    hint="where it was made: torch.save(model.state_dict(), ...)",
                )
        raise damaged(path)
