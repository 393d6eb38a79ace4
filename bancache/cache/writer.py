"""Writing a cache: regions in any order, each durable before it is recorded, the manifest last.

    data → flush → rename → flush directory → record (the same way) → … → manifest with every digest

Killed between any two of these, the next writer finds either a recorded region, which it keeps, or an
unrecorded one, which it writes again; both give the same bytes in the end. Several processes may write at
once: who comes to a region that is recorded drops what he has, and who finishes reads what others recorded.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.arrays import describe_arrays
from bancache.cache.claims import Claims
from bancache.cache.compressed import fold_region
from bancache.cache.folder import clean, clear, require_no_links, require_ours, settle, tidy
from bancache.cache.layout import Layout, Region
from bancache.cache.manifest import Manifest
from bancache.cache.records import Records
from bancache.cache.sealed import FILES_LIMIT, MANIFEST, draft_of, read_manifest, seal, unfinished
from bancache.cache.store import Digest, DurableStore, Mark, digest_of, inspect_file
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.files import make_directory, storage_errors, write_atomically, write_json
from bancache.fingerprint import fingerprint_json, short
from bancache.locks import CLAIMS, exclusive, shared, try_lock

_HELP = "help it with --join, wait for it, or choose another --out"


class CacheWriter:
    """A cache that is being written by this process, perhaps among others.

    Attributes:
        path: Its directory.
        layout: Its regions.
        claims: Which regions this process says it is at.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int, *, alone: bool) -> None:
        """Not for callers: see ``open_writer``.

        Args:
            path: A folder with the unfinished manifest.
            manifest: What it promises.
            lock: A descriptor to lock: shared by who writes a region, exclusive by who finishes.
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

    def pending(self) -> list[Region]:
        """Return the regions that are not yet recorded by anybody, in order."""
        return [self.layout.region(index) for index in self._records.missing()]

    def is_recorded(self, region: Region) -> bool:
        """Return whether a region is done, here or by another process."""
        return region.index in self._records

    def is_ready(self, region: Region) -> bool:
        """Return whether all that a region builds on is recorded."""
        required = self.layout.requires(region)
        return required is None or required.index in self._records

    def is_complete(self) -> bool:
        """Return whether another process has finished the cache."""
        with storage_errors(self.path):
            replaced = Mark.of((self.path / MANIFEST).stat()) != self._begun
        return replaced and bool(read_manifest(self.path)["complete"])

    def write_region(self, region: Region, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Write one region's arrays, then its record; when this returns, both are on disk.

        Where another process was faster, its region stays and this one is dropped.

        Args:
            region: One of ``pending``.
            fields: For each field, an array (region.stop - region.start, *shape) of its dtype.
            facts: JSON values about the region, handed to ``finish``.

        Raises:
            StorageError: The disk is full, read-only or failing; what was recorded before stays.
            UsageError: An array has another dtype or shape, which would be cast or repeated silently; or the
                region that this one requires is not recorded.
        """
        self._require_whole(region, fields)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            if self.is_recorded(region):
                self._records.flush()
            elif not self.is_complete():
                self._write(region, fields, facts)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self.claims.release(region.index)

    def adopt(
        self,
        region: Region,
        files: Mapping[str, Digest],
        reference: Mapping[str, Digest],
        facts: dict[str, Any],
    ) -> None:
        """Record a region whose files somebody has put in place, durably, from another store.

        Args:
            region: One of ``pending``.
            files: What its files are.
            reference: What the files are that it is stored relative to.
            facts: As ``write_region`` takes them.

        Raises:
            MismatchError: It is stored relative to another answer than the one that is recorded here.
        """
        here = self._reference(region)
        if here != reference:
            raise MismatchError.between(
                f"what {region} is stored relative to",
                stored=_named(here),
                given=_named(reference),
                hint="take it from the store that slot 0 was taken from",
            )
        marks = {key: Mark.of((self.path / key).lstat()) for key in files}
        self._records.write(region, facts, dict(files), marks, here)

    def finish(self, summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> bool:
        """Write the manifest that makes the cache complete, then clear what is no longer needed.

        Args:
            summarise: Makes the manifest's summary from all regions' facts, in the regions' order.

        Returns:
            Whether this call did it. If not, another process writes or has finished, or a region was not as
            another process had recorded it and is pending again.

        Raises:
            CacheDamagedError: Regions are missing.
        """
        if not try_lock(self._lock, fcntl.LOCK_EX):
            return False
        try:
            if self.is_complete():
                tidy(self.path)
                return False
            if missing := self.pending():
                raise CacheDamagedError(f"{len(missing)} regions are still missing")
            if not self._records.confirm():
                return False
            write_json(self.path / MANIFEST, self._completed(summarise))
            tidy(self.path)
            return True
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self, region: Region, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        reference = self._reference(region)
        stored = fold_region(self.path, self.layout, self._described, region, fields, reference)
        for name, array in self._arrays.items():
            array[region.slot : region.slot + 1, region.start : region.stop] = stored[name][np.newaxis]
        keys = self.layout.chunk_keys(region)
        files = {key: self._store.digests.pop(key) for key in keys}
        marks = {key: self._store.marks.pop(key) for key in keys}
        self._records.write(region, facts, files, marks, reference)

    def _completed(self, summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> dict[str, Any]:
        records = self._records.all()
        files: dict[str, Digest] = {key: digest_of(content) for key, content in self._described.items()}
        for record in records:
            files.update(record["files"])
        body = {
            **draft_of(self.layout.manifest.to_dict()),
            "complete": True,
            "summary": summarise([record["facts"] for record in records]),
            "files": {key: list(files[key]) for key in sorted(files)},
        }
        return seal(body)

    def _require_whole(self, region: Region, fields: Mapping[str, NDArray[Any]]) -> None:
        for field in self.layout.manifest.fields:
            found = fields[field.name]
            shape = (region.stop - region.start, *field.shape)
            if found.dtype != np.dtype(field.dtype) or found.shape != shape:
                raise UsageError(
                    f"{region}: '{field.name}' is {found.dtype}{list(found.shape)}, "
                    f"the cache keeps {field.dtype}{list(shape)}"
                )

    def _reference(self, region: Region) -> dict[str, Digest]:
        """Return the digests of the region's files that this one is stored relative to; usually none."""
        required = self.layout.requires(region)
        if required is None:
            return {}
        if required.index not in self._records:
            raise UsageError(f"{region} is written relative to {required}, which is not yet recorded")
        return self._records.files(required.index)

    def _write_metadata(self) -> None:
        """Write what describes the group and the arrays, where it is not there as it should be."""
        for key, content in self._described.items():
            if inspect_file(self.path, key, digest_of(content)) is not None:
                make_directory((self.path / key).parent)
                write_atomically(self.path / key, content)

    def _open_arrays(self) -> dict[str, Any]:
        import zarr

        # A region that happens to equal the fill value is written like any other.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return {
                field.name: zarr.open_array(self._store, path=field.name, mode="r+", zarr_format=3)
                for field in self.layout.manifest.fields
            }


@contextmanager
def open_writer(
    path: Path, manifest: Manifest, *, overwrite: bool = False, join: bool = False
) -> Iterator[CacheWriter | None]:
    """Create a cache, or go on with one that makes the same promise; None when it is complete already.

    Args:
        path: Its directory.
        manifest: What it promises.
        overwrite: Start anew instead of going on.
        join: Come to the help of who writes it already, or begin it for others to join. Without this, only
            those that join may come while the cache is open.

    Raises:
        MismatchError: What is there was made from something else.
        BusyError: Another process is writing it.
        UsageError: What is there is not a cache, or others may be working on what is to be overwritten.
        StorageError: The place cannot be written.
    """
    if Layout(manifest).files() > FILES_LIMIT:
        raise UsageError(
            f"the cache would have {Layout(manifest).files():,} files; at most {FILES_LIMIT:,} fit its manifest",
            hint="make several caches of fewer views",
        )
    if join and overwrite:
        raise UsageError("who joins cannot overwrite", hint="leave out --join or --overwrite")
    require_ours(path)
    make_directory(path)
    with _joined(path, manifest) if join else _alone(path, manifest, overwrite) as writer:
        try:
            yield writer
        finally:
            if writer is not None:
                writer.claims.release_all()


@contextmanager
def _alone(path: Path, manifest: Manifest, overwrite: bool) -> Iterator[CacheWriter | None]:
    """Begin with nobody else there; when the writer is ready, others may join."""
    with exclusive(path, sharing=True, hint=_HELP) as share:
        promise = _begin(path, manifest, overwrite)
        if promise is None:
            tidy(path)
            yield None
            return
        clean(path)
        settle(path)
        with _inner_lock(path) as lock:
            writer = CacheWriter(path, promise, lock, alone=True)
            share()
            yield writer


@contextmanager
def _joined(path: Path, manifest: Manifest) -> Iterator[CacheWriter | None]:
    """Begin where others may be writing; one at a time, while nobody writes a region."""
    with shared(path):
        finished = (path / MANIFEST).is_file() and not (path / CLAIMS).is_dir()
        if finished and _begin(path, manifest, overwrite=False) is None:
            yield None
            return
        with _inner_lock(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            promise = _begin(path, manifest, overwrite=False)
            if promise is None:
                tidy(path)
                yield None
                return
            settle(path)
            writer = CacheWriter(path, promise, lock, alone=False)
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield writer


def _begin(path: Path, manifest: Manifest, overwrite: bool) -> Manifest | None:
    """Leave an unfinished manifest and return what it promises; None if the cache is complete."""
    require_no_links(path)
    stored: dict[str, Any] = {"complete": False}
    if there := (path / MANIFEST).is_file():
        stored = read_manifest(path)
        kept = Manifest.from_dict(stored["promise"])
        if overwrite:
            clear(path, kept)
        else:
            kept.require_same(manifest)
            # The promise on disk stays as it is, down to the versions that began it.
            manifest = kept
    if overwrite or not there:
        write_json(path / MANIFEST, unfinished(manifest))
    elif stored["complete"]:
        return None
    return manifest


@contextmanager
def _inner_lock(path: Path) -> Iterator[int]:
    """Open what those lock who hold the folder together; it goes when the cache is complete."""
    descriptor = None
    while descriptor is None:
        with storage_errors(path):
            (path / CLAIMS).mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # whoever finished has just removed the folder
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
                descriptor = os.open(path / CLAIMS / "lock", flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _named(files: Mapping[str, Digest]) -> str:
    return ", ".join(f"{key} '{short(digest.sha256)}'" for key, digest in files.items()) or "nothing"
