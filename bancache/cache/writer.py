"""Writing a cache: shards in any order, each durable before it is recorded, the manifest last.

    chunk files → flush → rename → flush directory → record (the same way) → … → manifest with every digest

After a kill at any point, the next writer keeps the shards that are recorded and writes the others again. Several
processes may write at once: a shard that another process has recorded is not written. The process that completes the
cache reads the files that others recorded, also before a kill. The result is byte-identical in every case.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.claims import Claims
from bancache.cache.digests import Digest, Mark, digest_of
from bancache.cache.directory import Folders, remove_working_files, write_metadata
from bancache.cache.files import LocalFiles
from bancache.cache.layout import Layout, Shard, describe_arrays
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, read_manifest, with_manifest
from bancache.cache.records import Records
from bancache.cache.views import EncodedView, encode_shard, read_shard
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.files import storage_errors, write_atomically, write_json
from bancache.system.fingerprint import short
from bancache.system.locks import try_lock, wait_for_lock
from bancache.system.wording import count

# Makes the summary of a cache from all shards' facts, in order.
Summarize = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


class CacheWriter:
    """A cache that this process is writing, perhaps together with others; made by ``opening.open_writer``."""

    def __init__(
        self, path: Path, manifest: Manifest, lock: int, *, alone: bool = False, begun: Mark | None = None
    ) -> None:
        """Write the zarr.json files; with ``alone``, no other process writes yet, so records without their files are removed.

        ``lock`` is a descriptor for flock: shared while a shard is written, exclusive to complete the cache. ``begun`` is
        the mark of the manifest if another process has begun the cache and completes it: nothing is made or listed.
        """
        self.path, self.layout, self.claims = path, Layout(manifest), Claims(path)
        self._files = LocalFiles(path)
        # The kind of device of this process, if it is not the one that began the cache: each of its records says so.
        self.made_on: dict[str, Any] = {}
        self._lock, self._counting, self._writing = lock, Lock(), 0
        if begun is None:
            write_metadata(path, self._described)
        self._records = Records(path, self.layout, make=begun is None)
        self._folders = Folders(path, flushed=begun is None)
        self._begun = begun or Mark.of((path / MANIFEST).stat())
        if alone:
            self._records.look()

    @cached_property
    def _described(self) -> dict[str, bytes]:
        return describe_arrays(self.layout)

    def pending(self) -> list[Shard]:
        """Return the shards that no process has recorded, in order."""
        return [self.layout.shard(index) for index in self._records.missing()]

    def is_recorded(self, shard: Shard) -> bool:
        """Return whether a shard is done, by this or another process."""
        return shard.index in self._records

    def trust(self, shard: Shard) -> bool:
        """Take a shard for written by this process, for its worker says so; return whether its record is there."""
        return self._records.trust(shard.index)

    def is_ready(self, shard: Shard) -> bool:
        """Return whether the shard that this one is stored relative to, if there is one, is recorded."""
        required = self.layout.requires(shard)
        return required is None or required.index in self._records

    def is_complete(self) -> bool:
        """Return whether another process has completed the cache."""
        with storage_errors(self.path):
            replaced = Mark.of((self.path / MANIFEST).stat()) != self._begun
        return replaced and bool(read_manifest(self.path)["complete"])

    def recorded(self) -> tuple[Shard, EncodedView] | None:
        """Return the first recorded shard that is not stored relative to another one, and its values; None if there is none."""
        for shard in self.layout.shards():
            if self.layout.requires(shard) is None and self.is_recorded(shard):
                return shard, read_shard(self._files, self.layout, shard, self._records.files(shard.index))
        return None

    def write_shard(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Write a shard's chunk files, then its record; both are durable on return. Several threads may do so at once.

        If another process has recorded the shard, that one stays and ``fields`` are dropped. ``fields`` has an array
        (shard.stop - shard.start, *shape) for each field; ``facts`` are JSON values for ``finish``.
        """
        require_whole(self.layout, shard, fields)
        with self._shared():
            if self.is_recorded(shard):
                self._records.flush()
            elif not self.is_complete():
                self._write(shard, fields, {**facts, "made_on": [self.made_on]} if self.made_on else facts)
        self.claims.release(shard.index)

    def adopt(
        self,
        shard: Shard,
        files: Mapping[str, Digest],
        reference: Mapping[str, Digest],
        facts: dict[str, Any],
    ) -> None:
        """Record a shard whose files the caller has put in place, durably, from another cache."""
        here = self._reference(shard)
        if here != reference:
            raise MismatchError.between(
                f"the shard that {shard} is stored relative to",
                stored=_named(here),
                given=_named(reference),
                hint="take it from the cache that view 0 was taken from",
            )
        marks = {key: Mark.of((self.path / key).lstat()) for key in files}
        self._records.write(shard, facts, dict(files), marks, here)

    def finish(self, summarize: Summarize, log: Callable[[str], object] = lambda text: None) -> bool:
        """Write the manifest that makes the cache complete, remove working files, and return whether this call did it.

        If not, another process is writing or has completed it, or the files of a shard are not as it was
        recorded, and the shard is pending again. ``summarize`` makes the summary from all shards' facts, in order;
        ``log`` is told when there are files to read first.
        """
        if not try_lock(self._lock, fcntl.LOCK_EX):
            return False
        try:
            done = self.is_complete()
            if not done:
                if missing := self.pending():
                    raise CacheDamagedError(f"still missing: {count(len(missing), 'shard')}")
                if unread := self._records.unread:
                    log(f"reading {count(unread, 'shard')} of earlier runs or other processes once")
                if not self._records.confirm():
                    return False
                files = map(self._records.files, range(self.layout.count))
                stored = completed(self.layout, self._described, files, self._records.facts(), summarize)
                write_json(self.path / MANIFEST, stored)
            remove_working_files(self.path)
            return not done
        finally:
            wait_for_lock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Hold the lock while any thread of this process writes: they share its descriptor."""
        with self._counting:
            if not self._writing:
                wait_for_lock(self._lock, fcntl.LOCK_SH)
            self._writing += 1
        try:
            yield
        finally:
            with self._counting:
                self._writing -= 1
                if not self._writing:
                    wait_for_lock(self._lock, fcntl.LOCK_UN)

    def _write(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        reference = self._reference(shard)
        files, marks = {}, {}
        for key, content in encode_shard(self._files, self.layout, shard, fields, reference):
            self._folders.make((self.path / key).parent)
            marks[key] = Mark.of(write_atomically(self.path / key, content))
            files[key] = digest_of(content)
        self._records.write(shard, facts, files, marks, reference)

    def _reference(self, shard: Shard) -> dict[str, Digest]:
        """Return the digests of the files that a shard is stored relative to; usually none."""
        required = self.layout.requires(shard)
        if required is None:
            return {}
        if required.index not in self._records:
            raise UsageError(f"{shard} is written relative to {required}, which is not yet recorded")
        return self._records.files(required.index)


def require_whole(layout: Layout, shard: Shard, fields: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a shard's arrays if they would be cast or repeated silently."""
    for field in layout.manifest.fields:
        found = fields[field.name]
        shape = (shard.stop - shard.start, *field.shape)
        if found.dtype != np.dtype(field.dtype) or found.shape != shape:
            raise UsageError(
                f"{shard}: '{field.name}' is {found.dtype}{list(found.shape)}, "
                f"the cache keeps {field.dtype}{list(shape)}"
            )


def completed(
    layout: Layout,
    described: Mapping[str, bytes],
    files: Iterable[Mapping[str, Digest]],
    facts: Sequence[dict[str, Any]],
    summarize: Summarize,
) -> dict[str, Any]:
    """Return the manifest.json of a complete cache with these zarr.json files, and files and facts of all shards, in order."""
    digests = {key: digest_of(content) for key, content in described.items()}
    for each in files:
        digests.update(each)
    return with_manifest(layout.manifest, complete=True, summary=summarize(facts), files=digests)


def _named(files: Mapping[str, Digest]) -> str:
    return ", ".join(f"{key} '{short(digest.sha256)}'" for key, digest in files.items()) or "nothing"
