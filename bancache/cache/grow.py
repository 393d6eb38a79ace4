"""Regions that another store holds already: found there, checked by digest, taken over without being answered again.

A region's files have the same names in every store of the same samples and fields, however many slots it has. They
are taken over as hard links where both stores lie on one file system, as copies elsewhere. A file that two stores
share is safe: no writer here changes a file in place, a new one is renamed over it, and then only one store has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.reader import Cache
from bancache.cache.sealed import RECORDS, is_sealed, seal
from bancache.cache.store import Digest, damaged, inspect_file, parse_digests
from bancache.cache.writer import open_writer
from bancache.errors import CacheDamagedError
from bancache.files import (
    TEMPORARY_SUFFIX,
    make_directory,
    read_json,
    storage_errors,
    sync_directory,
    write_atomically,
    write_json,
)
from bancache.fingerprint import fingerprint_json
from bancache.progress import Progress, Silent

_RECORD_LIMIT = 1 << 20
# Another file system, one without links, somebody else's file, or one with too many links.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES})


@dataclass(frozen=True)
class Piece:
    """A region as it lies in some store.

    Attributes:
        root: The store.
        files: Its files and what they must be.
        facts: What its record says, or would say.
    """

    root: Path
    files: Mapping[str, Digest]
    facts: dict[str, Any]

    def problem(self) -> str | None:
        """Say what is wrong with its files, after reading them, or None."""
        return next(
            (p for key, digest in self.files.items() if (p := inspect_file(self.root, key, digest))), None
        )


def pieces_of(cache: Cache, facts: Mapping[int, dict[str, Any]]) -> dict[int, Piece]:
    """Return the regions of a complete cache whose facts are given, by index; nothing is read."""
    layout = Layout(cache.manifest)
    keys = {index: layout.chunk_keys(layout.region(index)) for index in facts}
    return {i: Piece(cache.path, {key: cache.digests[key] for key in keys[i]}, facts[i]) for i in facts}


def recorded_pieces(path: Path, manifest: Manifest) -> dict[int, Piece]:
    """Return the regions that an unfinished store has a record of, by index; their files are not read."""
    layout, promise = Layout(manifest), fingerprint_json(manifest.to_dict())
    found = {}
    for file in sorted((path / RECORDS).glob("*.json")):
        with contextlib.suppress(CacheDamagedError):  # as a writer does: such a region is not there
            record = read_json(file, limit=_RECORD_LIMIT, error=CacheDamagedError)
            if not isinstance(record, dict) or not is_sealed(record) or record.get("promise") != promise:
                continue
            index = record.get("region")
            if type(index) is not int or not 0 <= index < layout.count or "facts" not in record:
                continue
            digests = parse_digests(record.get("files"), layout.chunk_keys(layout.region(index)))
            if digests is not None:
                found[index] = Piece(path, digests, record["facts"])
    return found


def plant(
    path: Path, manifest: Manifest, pieces: Mapping[int, Piece], *, progress: Progress | None = None
) -> None:
    """Begin a store, or go on with one, by taking over the regions of others that it does not have yet.

    Killed at any instant, the same call goes on; a region counts once its record is there, as in any dump.

    Raises:
        CacheDamagedError: A piece is not as its digests say; the message names it.
        MismatchError: What is at ``path`` promises something else.
        StorageError: The disk is full, read-only or failing.
    """
    with open_writer(path, manifest) as writer:
        if writer is None:
            return
        layout = writer.layout  # of the promise on disk
        promise = fingerprint_json(layout.manifest.to_dict())
        todo = [region for region in writer.pending() if region.index in pieces]
        with (progress or Silent()).stage("take over", total=len(todo), unit="regions") as stage:
            for region in todo:
                piece = pieces[region.index]
                if problem := piece.problem():
                    raise damaged(str(region), problem, piece.root)
                for key in piece.files:
                    _share(piece.root / key, path / key)
                record = {
                    "promise": promise,
                    "region": region.index,
                    "rows": region.stop - region.start,
                    "files": {key: list(digest) for key, digest in piece.files.items()},
                    "facts": piece.facts,
                }
                write_json(path / RECORDS / f"{region.index:06d}.json", seal(record))
                stage.advance(1)


def _share(source: Path, target: Path) -> None:
    """Give a file a second name, durably; copy it where that cannot be."""
    make_directory(target.parent)
    beside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    with storage_errors(target):
        try:
            os.link(source, beside)
        except OSError as refused:
            if refused.errno not in _NO_LINK:
                raise
            write_atomically(target, source.read_bytes())
            return
        try:
            # Its writer flushed it; whoever copied it here need not have.
            descriptor = os.open(beside, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            beside.replace(target)
            sync_directory(target.parent)
        finally:
            # Renaming one name of a file over another of its names does nothing, and leaves both.
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
