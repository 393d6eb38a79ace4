"""Import shards from other caches: check their digests and link or copy their files.

A shard's files have the same names in every cache of the same samples and fields, whatever its number of views. Two
caches may share a file by a hard link: no writer changes a file in place, it renames a new file over the old name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bancache.cache.digests import Digest, damaged, inspect_file
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import require_local
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache
from bancache.cache.records import read_records
from bancache.errors import UsageError
from bancache.system.files import (
    TEMPORARY_SUFFIX,
    make_directory,
    storage_errors,
    sync_directory,
    write_atomically,
)
from bancache.system.progress import Progress, Silent
from bancache.system.wording import command, count

# Another file system, one without links, another user's file, or a file with too many links.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES})


@dataclass(frozen=True)
class ImportedShard:
    """A shard of another cache, in the directory ``root``: the digests of its files and the facts in its record.

    ``reference`` has the digests of the shard that it is stored relative to; empty except in profile compact.
    """

    root: Path
    files: Mapping[str, Digest]
    facts: dict[str, Any]
    reference: Mapping[str, Digest] = field(default_factory=dict)

    def problem(self) -> str | None:
        """Read its files and return the first problem, or None."""
        return next((p for f in self.files.items() if (p := inspect_file(self.root, *f))), None)


def shards_of(cache: Cache, facts: Mapping[int, dict[str, Any]]) -> dict[int, ImportedShard]:
    """Return the shards of a complete cache for which facts are given, by index; no file is read."""
    layout, shards = Layout(cache.manifest), {}
    for index, known in facts.items():
        shard = layout.shard(index)
        required = layout.requires(shard)
        files = {key: cache.digests[key] for key in layout.chunk_keys(shard)}
        reference = {key: cache.digests[key] for key in layout.chunk_keys(required)} if required else {}
        shards[index] = ImportedShard(cache.path, files, known, reference)
    return shards


def recorded_shards(path: Path, manifest: Manifest) -> dict[int, ImportedShard]:
    """Return the shards of an unfinished cache that have a record, by index; their files are not read."""
    records = read_records(path, Layout(manifest))
    return {i: ImportedShard(path, r["files"], r["facts"], r["reference"]) for i, r in records.items()}


def require_other(out: str | os.PathLike[str], sources: Sequence[Path]) -> None:
    """Refuse to write a new cache over one of its sources, and places that are no folders: files are linked."""
    require_local(out, to_write=True)
    for path in sources:
        require_local(path)
    if Path(out).resolve() in {path.resolve() for path in sources}:
        raise UsageError(f"{out} is also the source", hint="choose another --out")


def require_resizable(
    path: Path, manifest: Manifest, num_views: int, out: str | os.PathLike[str], *, larger: bool
) -> None:
    """Refuse to write over the cache at ``path``, and fewer views than it has if the new cache is ``larger``, else more.

    Raises:
        UsageError: The hint has the command that can do it.
    """
    require_other(out, [path])
    name = path.with_name(f"{path.stem}-{num_views}.zarr")
    verb = "prune" if larger else "extend"
    way = command(verb, path, "--num-views", num_views, "--out", name)
    views = count(manifest.num_views, "view")
    if larger and num_views < manifest.num_views:
        raise UsageError(f"{path} has {views}, more than {num_views}", hint=f"keep fewer views with {way}")
    if not larger and not 1 <= num_views <= manifest.num_views:
        raise UsageError(f"{path} has {views}, so it cannot keep {num_views}", hint=f"add views with {way}")


def import_shards(
    path: str | os.PathLike[str],
    manifest: Manifest,
    shards: Mapping[int, ImportedShard],
    *,
    summarize: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Begin or continue a cache by importing the shards, given by index, that it does not have yet.

    Killed at any instant, the same call continues. ``summarize`` makes the manifest's summary, which completes the
    cache; without it the cache stays unfinished.

    Raises:
        CacheDamagedError: A shard's files do not match their digests, or ``summarize`` is given and shards are missing.
        MismatchError: The cache at ``path`` has another manifest, or a shard is stored relative to other files than
            those at ``path``.
        StorageError: The disk is full, read-only or failing.
    """
    progress = progress or Silent()
    with open_writer(Path(path), manifest) as writer:
        while writer is not None:
            missing = [shard for shard in writer.pending() if shard.index in shards]
            with progress.stage("import", total=len(missing), unit="shards") as stage:
                for shard in missing:
                    source = shards[shard.index]
                    if problem := source.problem():
                        raise damaged(str(shard), problem, source.root)
                    for key in source.files:
                        _link_or_copy(source.root / key, Path(path) / key)
                    writer.adopt(shard, source.files, source.reference, source.facts)
                    stage.advance(1)
            # What an interrupted call imported is read at the end, and imported again if it has been damaged since.
            if summarize is None or writer.finish(summarize, progress.log) or not writer.pending():
                return


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, durably; copy it if the file system refuses."""
    make_directory(target.parent)
    link = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    with storage_errors(target):
        try:
            os.link(source, link)
        except OSError as refused:
            if refused.errno not in _NO_LINK:
                raise
            write_atomically(target, source.read_bytes())
            return
        try:
            # The file may have been copied to the source by a program that did not flush it.
            with link.open("rb") as stream:
                os.fsync(stream.fileno())
            link.replace(target)
            sync_directory(target.parent)
        finally:
            # rename(2) between two names of one file does nothing and leaves both.
            with contextlib.suppress(OSError):
                link.unlink(missing_ok=True)
