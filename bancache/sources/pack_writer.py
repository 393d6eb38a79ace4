"""Packing: every picture of a source is read, decoded and checked once, and written to one file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bancache.errors import DataError, StorageError, UsageError
from bancache.sources.golden import require_decoder
from bancache.sources.pack import Pack, open_file
from bancache.sources.pack_format import (
    MAGIC,
    PROLOGUE,
    Column,
    Header,
    SplitHeader,
    Splits,
    column_bytes,
    header_bytes,
    paths_columns,
)
from bancache.sources.pack_partial import Partial, partial, partial_path, remove_rests
from bancache.sources.pack_source import Expected, Packer, Shape, Source, White, require_kind, sources_of
from bancache.sources.pack_split import Done, SplitPacking
from bancache.sources.pictures import unreadable
from bancache.system.files import free_bytes
from bancache.system.progress import Progress
from bancache.system.read_ahead import num_threads
from bancache.system.signals import Interrupt

# Of an entry of the index, with the name of a file.
_ENTRY_BYTES = 128
_ALIGNMENT = 8


@dataclass(frozen=True)
class Summary:
    """What was packed, or lay there already.

    Attributes:
        pack: The pack, open.
        made: Whether this call wrote it.
        left_out: How many pictures could not be read; None if it lay there already, as a pack does not record them.
    """

    pack: Pack
    made: bool
    left_out: int | None = None


def pack(
    source: str,
    out: Path,
    shape: Shape,
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    download: bool = False,
    progress: Progress,
    interrupt: Interrupt,
) -> Summary:
    """Write a pack of both splits of a source, or go on with one that was begun.

    Args:
        source: As ``--data`` takes it.
        out: The file to write.
        shape: What becomes of each picture.
        skip_bad: Leave out pictures that cannot be read.
        overwrite: Begin anew, and replace ``out``.
        threads: How many decode ahead; one for each core if None.
        download: As ``open_source``.
        progress: Receives progress and notes.
        interrupt: Stops the work; what was packed is kept.

    Raises:
        UsageError: The options make no sense for this source, or ``out`` is something else.
        DataError: The source cannot be read, or pictures of it, which are all named.
        MismatchError: It was begun from other pictures or with other options.
        StorageError: The disk is full; what was flushed is kept.
        StoppedError: A stop was requested.
    """
    if out.exists() and not overwrite:
        return _complete(source, out, shape)
    sources = sources_of(source, download=download, progress=progress)
    _require_sense(source, sources, shape)
    total = sum(len(each.pictures.labels) for each in sources.values())
    plan = {"pack": 1, "source": source, "kind": shape.kind, "size": shape.size, "square": shape.square}
    plan |= {"pictures": total, **{split: each.identity for split, each in sources.items()}}
    expected = {split: each.survey(shape) for split, each in sources.items()}
    _require_room(out, list(expected.values()), total)
    white, base = White(sources["train"].pictures), 0
    with partial(out, plan, overwrite=overwrite) as begun:
        packing: dict[str, SplitPacking] = {}
        for split, each in sources.items():
            packer, ahead = Packer(shape, expected[split].channels, white), threads or num_threads()
            packing[split] = SplitPacking(each, expected[split], packer, begun, base, threads=ahead)
            packing[split].append(interrupt, total)
            base += len(each.pictures.labels)
        begun.flush()
        bad = [found for each in packing.values() for found in each.bad]
        if bad and not skip_bad:
            raise unreadable(source, [where for where, _ in bad], total, bad[0][1])
        done = {split: each.finish() for split, each in packing.items()}
        _finish(begun, done, sources["train"], shape, white.found)
    for note in [note for each in done.values() for note in each.notes]:
        progress.note(note)
    if white.found is not None:
        progress.note(f"{source}: pictures of 16 bits became 8 bits: the value {white.found:,} is white")
    return Summary(open_file(out), made=True, left_out=len(bad))


def _require_sense(source: str, sources: dict[str, Source], shape: Shape) -> None:
    """Refuse a kind, a decoder, or names that JSON in UTF-8 cannot hold, before hours of work."""
    require_kind(sources, shape)
    if any(each.encoded for each in sources.values()):
        require_decoder()
    for name in (source, *sources["train"].pictures.classes):
        if name.encode("utf-8", "replace").decode() != name:
            raise DataError(
                f"the name '{name}' is not UTF-8, and a pack has names of classes", hint="rename it"
            )


def _complete(source: str, out: Path, shape: Shape) -> Summary:
    """Return the pack that lies there if it is this one."""
    try:
        there = open_file(out)
    except DataError as error:
        raise UsageError(
            f"{out} exists and is no whole pack: {error}", hint="choose another --out"
        ) from error
    said, asked = there.header, (source, shape.kind, shape.size, shape.square)
    if (said.source, said.kind, said.size, said.square) != asked:
        raise UsageError(
            f"{out} is a pack of kind {said.kind} of {said.source}",
            hint="choose another --out, or add --overwrite",
        )
    remove_rests(out)
    return Summary(there, made=False)


def _require_room(out: Path, expected: list[Expected], total: int) -> None:
    needed = sum(each.bytes for each in expected) + total * _ENTRY_BYTES
    there = partial_path(out)
    free = free_bytes(out) + (there.stat().st_size if there.is_file() else 0)
    if needed > free:
        raise StorageError(
            f"a pack of {needed / 1e9:,.1f} GB does not fit {out.parent}, {free / 1e9:,.1f} GB are free",
            hint="make room, choose another --out, or pack smaller pixels with --size",
        )


def _finish(begun: Partial, done: dict[str, Done], source: Source, shape: Shape, white: int | None) -> None:
    """Append arrays and header, and write the prologue."""
    end = PROLOGUE.size + int(begun.all()["length"].sum())
    index, start = bytearray(), PROLOGUE.size
    headers: dict[str, SplitHeader] = {}
    for split, each in done.items():
        offsets = start + np.concatenate([[0], np.cumsum(each.records["length"])])
        start = int(offsets[-1])
        columns: dict[str, Any] = {
            "offsets": offsets,
            "heights": each.records["height"],
            "widths": each.records["width"],
            "labels": each.labels,
            "sha256": each.records["sha256"],
            **(paths_columns(each.paths) if each.paths is not None else {}),
        }
        where: dict[str, Column] = {}
        for name, values in columns.items():
            index += bytes(-(end + len(index)) % _ALIGNMENT)
            content = column_bytes(name, values)
            where[name] = Column(end + len(index), len(content), hashlib.sha256(content).hexdigest())
            index += content
        mean, std = each.known.statistics.mean, each.known.statistics.std
        headers[split] = SplitHeader(
            len(each.labels),
            1 if each.channels == 1 else 3,
            each.known.fingerprint,
            list(mean),
            list(std),
            where,
        )
    about = Header(
        shape.kind,
        source.pictures.classes,
        Splits(**headers),
        source.request.name,
        shape.size,
        shape.square,
        white if shape.kind == "encoded" else None,
    )
    text = header_bytes(about)
    at = end + len(index)
    begun.finish(bytes(index) + text, PROLOGUE.pack(MAGIC, at, len(text), hashlib.sha256(text).digest()))
