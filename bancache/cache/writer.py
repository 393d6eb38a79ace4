"""Writing a cache: shards in any order, each durable before it is recorded, the manifest last.

    data → flush → rename → flush directory → record (the same way) → … → manifest with every digest

Killed between any two of these, the next writer finds either a recorded shard, which it keeps, or an
unrecorded one, which it writes again; both give the same bytes in the end. Several processes may write at
once: who comes to a shard that is recorded drops what he has, and who finishes reads what others recorded.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.claims import Claims
from bancache.cache.compressed import fold_shard
from bancache.cache.digests import Digest, Mark, digest_of, inspect_file
from bancache.cache.directory import tidy
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, draft_of, read_manifest, seal
from bancache.cache.records import Records
from bancache.cache.store import DurableStore
from bancache.cache.zarr_metadata import describe_arrays
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.files import make_directory, storage_errors, write_atomically, write_json
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.locks import try_lock


class CacheWriter:
    """A cache that is being written by this process, perhaps among others.

    Attributes:
        path: Its directory.
        layout: Its shards.
        claims: Which shards this process says it is at.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int, *, alone: bool) -> None:
        """Not for callers: see ``opening.open_writer``.

        Args:
            path: A folder with the unfinished manifest.
            manifest: What it promises.
            lock: A descriptor to lock: shared by who writes a shard, exclusive by who finishes.
            alone: Whether nobody else writes yet; then all that is recorded is read.
        """
        self.path, self.layout, self.claims = path, Layout(manifest), Claims(path)
        self._lock = lock
        self._described = describe_arrays(self.layout)
        self._write_metadata()
        self._records = Records(path, self.layout, fingerprint_json(manifest.to_dict()))
        self._store = DurableStore(path)
        self._arrays = self._open_arrays()
        self._begun = Mark.of((path / MANIFEST).stat())
        if alone:
            self._records.confirm()

    def pending(self) -> list[Shard]:
        """Return the shards that are not yet recorded by anybody, in order."""
        return [self.layout.shard(index) for index in self._records.missing()]

    def is_recorded(self, shard: Shard) -> bool:
        """Return whether a shard is done, here or by another process."""
        return shard.index in self._records

    def is_ready(self, shard: Shard) -> bool:
        """Return whether all that a shard builds on is recorded."""
        required = self.layout.requires(shard)
        return required is None or required.index in self._records

    def is_complete(self) -> bool:
        """Return whether another process has finished the cache."""
        with storage_errors(self.path):
            replaced = Mark.of((self.path / MANIFEST).stat()) != self._begun
        return replaced and bool(read_manifest(self.path)["complete"])

    def write_shard(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Write one shard's arrays, then its record; when this returns, both are on disk.

        Where another process was faster, its shard stays and this one is dropped.

        Args:
            shard: One of ``pending``.
            fields: For each field, an array (shard.stop - shard.start, *shape) of its dtype.
            facts: JSON values about the shard, handed to ``finish``.

        Raises:
            StorageError: The disk is full, read-only or failing; what was recorded before stays.
            UsageError: An array has another dtype or shape, which would be cast or repeated silently; or the
                shard that this one requires is not recorded.
        """
        self._require_whole(shard, fields)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            if self.is_recorded(shard):
                self._records.flush()
            elif not self.is_complete():
                self._write(shard, fields, facts)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self.claims.release(shard.index)

    def adopt(
        self,
        shard: Shard,
        files: Mapping[str, Digest],
        reference: Mapping[str, Digest],
        facts: dict[str, Any],
    ) -> None:
        """Record a shard whose files somebody has put in place, durably, from another store.

        Args:
            shard: One of ``pending``.
            files: What its files are.
            reference: What the files are that it is stored relative to.
            facts: As ``write_region`` takes them.

        Raises:
            MismatchError: It is stored relative to another answer than the one that is recorded here.
        """
        here = self._reference(shard)
        if here != reference:
            raise MismatchError.between(
                f"what {shard} is stored relative to",
                stored=_named(here),
                given=_named(reference),
                hint="take it from the store that view 0 was taken from",
            )
        marks = {key: Mark.of((self.path / key).lstat()) for key in files}
        self._records.write(shard, facts, dict(files), marks, here)

    def finish(self, summarize: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> bool:
        """Write the manifest that makes the cache complete, then clear what is no longer needed.

        Args:
            summarize: Makes the manifest's summary from all shards' facts, in the shards' order.

        Returns:
            Whether this call did it. If not, another process writes or has finished, or a shard was not as
            another process had recorded it and is pending again.

        Raises:
            CacheDamagedError: Shards are missing.
        """
        if not try_lock(self._lock, fcntl.LOCK_EX):
            return False
        try:
            if self.is_complete():
                tidy(self.path)
                return False
            if missing := self.pending():
                raise CacheDamagedError(f"{len(missing)} shards are still missing")
            if not self._records.confirm():
                return False
            write_json(self.path / MANIFEST, self._completed(summarize))
            tidy(self.path)
            return True
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        reference = self._reference(shard)
        stored = fold_shard(self.path, self.layout, shard, fields, reference)
        for name, array in self._arrays.items():
            array[shard.view_index : shard.view_index + 1, shard.start : shard.stop] = stored[name][
                np.newaxis
            ]
        keys = self.layout.chunk_keys(shard)
        files = {key: self._store.digests.pop(key) for key in keys}
        marks = {key: self._store.marks.pop(key) for key in keys}
        self._records.write(shard, facts, files, marks, reference)

    def _completed(self, summarize: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> dict[str, Any]:
        records = self._records.all()
        files: dict[str, Digest] = {key: digest_of(content) for key, content in self._described.items()}
        for record in records:
            files.update(record["files"])
        body = {
            **draft_of(self.layout.manifest.to_dict()),
            "complete": True,
            "summary": summarize([record["facts"] for record in records]),
            "files": {key: list(files[key]) for key in sorted(files)},
        }
        return seal(body)

    def _require_whole(self, shard: Shard, fields: Mapping[str, NDArray[Any]]) -> None:
        for field in self.layout.manifest.fields:
            found = fields[field.name]
            shape = (shard.stop - shard.start, *field.shape)
            if found.dtype != np.dtype(field.dtype) or found.shape != shape:
                raise UsageError(
                    f"{shard}: '{field.name}' is {found.dtype}{list(found.shape)}, "
                    f"the cache keeps {field.dtype}{list(shape)}"
                )

    def _reference(self, shard: Shard) -> dict[str, Digest]:
        """Return the digests of the shard's files that this one is stored relative to; usually none."""
        required = self.layout.requires(shard)
        if required is None:
            return {}
        if required.index not in self._records:
            raise UsageError(f"{shard} is written relative to {required}, which is not yet recorded")
        return self._records.files(required.index)

    def _write_metadata(self) -> None:
        """Write what describes the group and the arrays, where it is not there as it should be."""
        for key, content in self._described.items():
            if inspect_file(self.path, key, digest_of(content)) is not None:
                make_directory((self.path / key).parent)
                write_atomically(self.path / key, content)

    def _open_arrays(self) -> dict[str, Any]:
        import zarr

        # A shard that happens to equal the fill value is written like any other.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return {
                field.name: zarr.open_array(self._store, path=field.name, mode="r+", zarr_format=3)
                for field in self.layout.manifest.fields
            }


def _named(files: Mapping[str, Digest]) -> str:
    return ", ".join(f"{key} '{short(digest.sha256)}'" for key, digest in files.items()) or "nothing"
