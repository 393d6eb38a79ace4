"""The format of packs, version 1: one file with the pictures of both splits; docs/format.md describes it.

A prologue of 64 bytes, then the pictures one after the other, then arrays with an entry for each picture, then a header in
JSON. The prologue has the header's sha256, the header those of the arrays, and one of the arrays that of each picture.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import Known, Statistics
from bancache.system.checked import Address, Count, Finite, Positive, Size, Text, checked, parse_json
from bancache.system.memory import require_memory
from bancache.system.reading import ByteSource

MAGIC = b"bancache pack 1\n"
PROLOGUE = struct.Struct("<16sQQ32s")
AGAIN = "copy it again from where it is whole, or make it again with `bancache pack`"

_LARGEST_HEADER = 1 << 26
_MOST_PIXELS = 1 << 60
_COLUMNS: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype("<i8"),
    "heights": np.dtype("<i4"),
    "widths": np.dtype("<i4"),
    "labels": np.dtype("<i4"),
    "sha256": np.dtype("V32"),
    "path_ends": np.dtype("<i8"),
    "paths": np.dtype("u1"),
}

Kind = Literal["encoded", "pixels"]
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Column(Struct):
    """Where an array with an entry for each picture lies."""

    at: Count
    bytes: Count
    sha256: Hash


class SplitHeader(Struct):
    """What a pack says of one split."""

    samples: Size
    channels: Literal[1, 3]
    fingerprint: Hash
    mean: Annotated[list[Finite], Meta(min_length=1, max_length=3)]
    std: Annotated[list[Positive], Meta(min_length=1, max_length=3)]
    columns: dict[str, Column]

    @property
    def known(self) -> Known:
        """The fingerprint and the statistics, of which opening a pack computes nothing."""
        return Known(self.fingerprint, Statistics(tuple(self.mean), tuple(self.std)))


class Splits(Struct):
    """Both splits."""

    train: SplitHeader
    test: SplitHeader


class Header(Struct):
    """What a pack says of itself.

    Attributes:
        kind: Whether it holds encoded pictures or pixels.
        classes: Names of both splits.
        splits: The pictures.
        source: What it was made from, as typed.
        size: Length in pixels that the shorter side was brought to; None if pictures kept their sizes.
        square: Whether the center square was cut out.
        white: Value that becomes 255 in encoded pictures of more than 8 bits; None if there are none.
    """

    kind: Kind
    classes: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1_000_000)]
    splits: Splits
    source: Address
    size: Size | None = None
    square: bool = False
    white: Annotated[int, Meta(ge=255, le=65535)] | None = None


class Index:
    """The pictures of a split: where each one lies, and what it is.

    Attributes:
        header: What the pack says of the split.
        offsets: int64 ``(N + 1,)``, where each picture begins in the file and the last one ends.
        heights: int32 ``(N,)``.
        widths: int32 ``(N,)``.
        labels: int64 ``(N,)``.
    """

    def __init__(self, file: ByteSource, header: Header, split: SplitHeader, end: int) -> None:
        """Read and check the arrays of a split; ``end`` is where pictures and arrays end.

        Raises:
            DataError: They are damaged or make no sense.
            OutOfMemoryError: They do not fit.
        """
        self.header, self._file, self._end = split, file, end
        entries = split.samples
        needed = sum(entries * _COLUMNS[name].itemsize for name in ("offsets", "heights", "widths", "sha256"))
        require_memory(needed, f"the {entries:,} entries that {file.name} claims", hint=AGAIN)
        self.offsets = self._column("offsets", entries + 1)
        self.heights = self._column("heights", entries)
        self.widths = self._column("widths", entries)
        self.labels: NDArray[np.int64] = self._column("labels", entries).astype(np.int64)
        # The largest part by far, and needed once for each picture.
        digests = self._column("sha256", entries)
        self._digests = None if file.near else digests
        del digests
        self._check(header)

    def digests(self) -> NDArray[np.uint64]:
        """Return the first 64 bits of the sha256 of each picture, ``(N,)``."""
        found = self._column("sha256", self.header.samples) if self._digests is None else self._digests
        return found.view("<u8").reshape(-1, 4)[:, 0]

    def sha256(self, sample: int) -> bytes:
        """Return the sha256 of an encoded picture, or of its pixels."""
        if self._digests is not None:
            return bytes(self._digests[sample].tobytes())
        size = _COLUMNS["sha256"].itemsize
        return self._file.read(self.header.columns["sha256"].at + sample * size, size).tobytes()

    def _check(self, header: Header) -> None:
        """Refuse arrays that contradict each other or the file: whoever made them can have made their sha256, too."""
        offsets, name = self.offsets, self._file.name
        lengths = np.diff(offsets)
        wrong = int(offsets[0]) < PROLOGUE.size or int(offsets[-1]) > self._end
        if wrong or int(lengths.min()) < 1 or int(offsets.min()) < 0:
            raise DataError(f"{name}: pictures lie outside of the file, or one over the other", hint=AGAIN)
        require_memory(int(lengths.max()), f"the largest picture that {name} claims", hint=AGAIN)
        least = min(int(self.heights.min()), int(self.widths.min()))
        pixels = self.heights.astype(np.float64) * self.widths * self.header.channels
        if least < 1 or pixels.sum() > _MOST_PIXELS:
            raise DataError(f"{name}: the sizes of its pictures make no sense", hint=AGAIN)
        if header.kind == "pixels" and (pixels != lengths).any():
            raise DataError(f"{name}: the pixels of a picture are not height x width x channels", hint=AGAIN)
        if len(self.header.mean) != self.header.channels or len(self.header.std) != self.header.channels:
            raise DataError(f"{name}: its means are not those of its channels", hint=AGAIN)

    @property
    def has_paths(self) -> bool:
        """Whether the pack says where each picture came from."""
        return "paths" in self.header.columns

    def paths(self) -> list[str]:
        """Return where each picture came from; ``has_paths``."""
        ends = self._column("path_ends", self.header.samples)
        text = self._column("paths", int(ends[-1])).tobytes()
        starts = np.concatenate([[0], ends[:-1]])
        if (ends < starts).any():
            raise DataError(f"{self._file.name}: its paths make no sense", hint=AGAIN)
        return [
            text[start:end].decode("utf-8", "surrogateescape")
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def _column(self, name: str, entries: int) -> NDArray[Any]:
        kind, where = _COLUMNS[name], self.header.columns.get(name)
        size = entries * kind.itemsize
        if where is None or where.bytes != size or where.at + size > self._end:
            raise DataError(f"{self._file.name} has no {name} of {entries:,} entries", hint=AGAIN)
        found = self._file.read(where.at, size)
        if hashlib.sha256(found.data).hexdigest() != where.sha256:
            raise DataError(f"{self._file.name}: its {name} are damaged", hint=AGAIN)
        found.flags.writeable = False
        return found.view(kind)


def read_header(file: ByteSource) -> tuple[Header, int, str]:
    """Return the header of a pack, where it begins, and its sha256; nothing large is read.

    Raises:
        DataError: The file is no pack, is cut or damaged, or its header makes no sense.
    """
    size = file.size()
    begins = bytes(file.read(0, len(MAGIC))) if size >= PROLOGUE.size else b""
    if begins != MAGIC and begins.startswith(MAGIC[:-2]):
        raise DataError(
            f"{file.name} is a pack of format {begins[len(MAGIC) - 2 :].decode(errors='replace').strip()}, 1 is known here",
            hint="use a newer bancache",
        )
    if begins != MAGIC:
        raise DataError(f"{file.name} is not a pack", hint="packs are written by `bancache pack`")
    _, at, length, digest = PROLOGUE.unpack(bytes(file.read(0, PROLOGUE.size)))
    if not 1 <= length <= _LARGEST_HEADER or at < PROLOGUE.size or at + length != size:
        raise DataError(
            f"{file.name} has {size:,} bytes, its beginning says {at + length:,}: it is cut or damaged",
            hint=AGAIN,
        )
    content = bytes(file.read(at, length))
    if hashlib.sha256(content).digest() != digest:
        raise DataError(f"{file.name}: its header is damaged", hint=AGAIN)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise DataError(f"{file.name}: its header is no JSON: {error}", hint=AGAIN) from error
    return checked(value, Header, name=file.name, error=DataError, hint=AGAIN), at, digest.hex()


def header_bytes(header: Header) -> bytes:
    """Return a header as it lies in the file."""
    return msgspec.json.encode(header, order="sorted")


def column_bytes(name: str, values: Any) -> bytes:
    """Return an array as it lies in the file."""
    return bytes(np.ascontiguousarray(values, _COLUMNS[name]).tobytes())


def paths_columns(paths: list[str]) -> dict[str, Any]:
    """Return the two arrays of paths."""
    encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
    ends = np.cumsum([len(path) for path in encoded])
    return {"path_ends": ends, "paths": np.frombuffer(b"".join(encoded), np.uint8)}
