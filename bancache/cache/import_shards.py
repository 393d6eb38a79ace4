"""Shards that another store holds already: found there, checked by digest, taken over without being answered again.

A shard's files have the same names in every store of the same samples and fields, however many views it has. They
are taken over as hard links where both stores lie on one file system, as copies elsewhere. A file that two stores
share is safe: no writer here changes a file in place, a new one is renamed over it, and then only one store has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bancache.cache.digests import Digest, damaged, inspect_file
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache
from bancache.cache.records import read_records
from bancache.system.files import (
    TEMPORARY_SUFFIX,
    make_directory,
    storage_errors,
    sync_directory,
    write_atomically,
)
from bancache.system.fingerprint import fingerprint_json
from bancache.system.progress import Progress, Silent

# Another file system, one without links, somebody else's file, or one with too many links.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES})


@dataclass(frozen=True)
class ImportedShard:
    """A shard as it lies in some store.

    Attributes:
        root: The store.
        files: Its files and what they must be.
        facts: What its record says, or would say.
        reference: Files of the shard that it is stored relative to; usually none.
    """

    root: Path
    files: Mapping[str, Digest]
    facts: dict[str, Any]
    reference: Mapping[str, Digest] = field(default_factory=dict)

    def problem(self) -> str | None:
        """Say what is wrong with its files, after reading them, or None."""
        return next(
            (p for key, digest in self.files.items() if (p := inspect_file(self.root, key, digest))), None
        )


def shards_of(cache: Cache, facts: Mapping[int, dict[str, Any]]) -> dict[int, ImportedShard]:
    """Return the shards of a complete cache whose facts are given, by index; nothing is read."""
    layout, pieces = Layout(cache.manifest), {}
    for index, said in facts.items():
        shard = layout.shard(index)
        required = layout.requires(shard)
        files = {key: cache.digests[key] for key in layout.chunk_keys(shard)}
        reference = {key: cache.digests[key] for key in layout.chunk_keys(required)} if required else {}
        pieces[index] = ImportedShard(cache.path, files, said, reference)
    return pieces


def recorded_shards(path: Path, manifest: Manifest) -> dict[int, ImportedShard]:
    """Return the shards that an unfinished store has a record of, by index; their files are not read."""
    found = read_records(path, Layout(manifest), fingerprint_json(manifest.to_dict()))
    return {i: ImportedShard(path, r["files"], r["facts"], r["reference"]) for i, r in found.items()}


def import_shards(
    path: Path, manifest: Manifest, pieces: Mapping[int, ImportedShard], *, progress: Progress | None = None
) -> None:
    """Begin a store, or go on with one, by taking over the shards of others that it does not have yet.

    Killed at any instant, the same call goes on; a shard counts once its record is there, as in any dump.

    Raises:
        CacheDamagedError: A piece is not as its digests say; the message names it.
        MismatchError: What is at ``path`` promises something else, or a piece is stored relative to another answer
            than the one that is there.
        StorageError: The disk is full, read-only or failing.
    """
    with open_writer(path, manifest) as writer:
        if writer is None:
            return
        todo = [shard for shard in writer.pending() if shard.index in pieces]
        with (progress or Silent()).stage("take over", total=len(todo), unit="shards") as stage:
            for shard in todo:
                piece = pieces[shard.index]
                if problem := piece.problem():
                    raise damaged(str(shard), problem, piece.root)
                for key in piece.files:
                    _share(piece.root / key, path / key)
                writer.adopt(shard, piece.files, piece.reference, piece.facts)
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
