"""Opening a cache for writing: one process begins it, others may join."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bancache.cache.digests import Mark
from bancache.cache.directory import (
    clear,
    flush_folders,
    remove_leftovers,
    remove_working_files,
    require_no_links,
    require_ours,
)
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import FILES_LIMIT, MANIFEST, manifest_of, read_manifest, unfinished
from bancache.cache.writer import CacheWriter
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.files import make_directory, storage_errors, sync_directory, write_json
from bancache.system.fingerprint import short
from bancache.system.locks import CLAIMS, exclusive, shared, unread, wait_for_lock

_READ = "wait for it or stop it, or choose another --out"
# A network file system may show a new file late.
_SHOWN_SECONDS, _LOOK_EVERY_SECONDS = 5.0, 0.2
HELP = "help it with --join, wait for it, or choose another --out"


@contextmanager
def open_writer(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    overwrite: bool = False,
    join: bool = False,
    mixed: bool = False,
) -> Iterator[CacheWriter | None]:
    """Create a cache, or go on with an unfinished one that has the same manifest; yield None if it is complete already.

    With ``overwrite``, start anew. With ``join``, write together with the processes that already do, or begin the cache
    for others to join; without it, only processes with ``join`` may come while the cache is open. With ``mixed``, the
    manifest may name another kind of device than the cache's.
    """
    path = Path(path)
    require_few_files(manifest)
    if join and overwrite:
        raise UsageError("a process that joins cannot overwrite", hint="leave out --join or --overwrite")
    require_ours(path)
    make_directory(path)
    with _joined(path, manifest, mixed) if join else _alone(path, manifest, overwrite, mixed) as writer:
        if writer is not None:
            writer.made_on = writer.layout.manifest.other_device(manifest)
        try:
            yield writer
        finally:
            if writer is not None:
                writer.claims.release_all()


def require_few_files(manifest: Manifest) -> None:
    """Refuse a cache of more files than its manifest can list."""
    count = Layout(manifest).files()
    if count > FILES_LIMIT:
        raise UsageError(
            f"the cache would have {count:,} files; at most {FILES_LIMIT:,} fit its manifest",
            hint="make several caches of fewer views",
        )


@contextmanager
def attend(path: Path, fingerprint: str) -> Iterator[CacheWriter | None]:
    """Write single shards of a cache that another process has begun and will complete; yield None if it is complete.

    Costs a few looks at the folder, and lists nothing. ``fingerprint`` is that of the cache's manifest.

    Raises:
        CacheDamagedError: There is no cache to be seen.
        MismatchError: It has another manifest.
    """
    _wait_for_manifest(path)
    with shared(path):
        begun = Mark.of((path / MANIFEST).stat())  # before it is read: another process may complete the cache
        stored = read_manifest(path)
        manifest = manifest_of(stored)
        require_fingerprint(path, manifest, fingerprint)
        lock = None if stored["complete"] else _existing_lock(path)
        if lock is None:
            yield None
            return
        with os.fdopen(lock):
            yield CacheWriter(path, manifest, lock, begun=begun)


def require_fingerprint(path: Path, manifest: Manifest, fingerprint: str) -> None:
    """Refuse a manifest of another cache than the one that was begun; MismatchError names both."""
    if manifest.fingerprint != fingerprint:
        raise MismatchError.between(
            f"{path}",
            stored=f"manifest '{short(manifest.fingerprint)}'",
            given=f"'{short(fingerprint)}'",
            hint="all workers must see the same folder under the same path",
        )


def _wait_for_manifest(path: Path) -> None:
    """Give a network file system the time to show what another machine has made."""
    patience = time.monotonic() + _SHOWN_SECONDS
    while not (path / MANIFEST).is_file():
        if time.monotonic() > patience or not path.parent.is_dir():
            raise CacheDamagedError(
                f"there is no cache to be seen at {path}",
                hint="all workers must see the same folder under the same path",
            )
        time.sleep(_LOOK_EVERY_SECONDS)
        with suppress(OSError):
            next(path.iterdir(), None)  # asks the server again


@contextmanager
def _alone(path: Path, manifest: Manifest, overwrite: bool, mixed: bool) -> Iterator[CacheWriter | None]:
    """Begin as the only process; others may join once the writer is ready."""
    with exclusive(path, sharing=True, hint=HELP) as share:
        kept = _begin(path, manifest, overwrite=overwrite, mixed=mixed)
        if kept is None:
            remove_working_files(path)
            yield None
            return
        remove_leftovers(path)
        flush_folders(path)
        with _inner_lock(path) as lock:
            writer = CacheWriter(path, kept, lock, alone=True)
            share()
            yield writer


@contextmanager
def _joined(path: Path, manifest: Manifest, mixed: bool) -> Iterator[CacheWriter | None]:
    """Begin where others may be writing: one process at a time, and while no shard is being written."""
    with shared(path):
        finished = (path / MANIFEST).is_file() and not (path / CLAIMS).is_dir()
        if finished and _begin(path, manifest, mixed=mixed) is None:
            yield None
            return
        with _inner_lock(path) as lock:
            wait_for_lock(lock, fcntl.LOCK_EX)
            kept = _begin(path, manifest, mixed=mixed)
            if kept is None:
                # The process that completed it may have died before its manifest's name was on disk; until it is, the
                # records are needed.
                with storage_errors(path):
                    sync_directory(path)
                remove_working_files(path)
                yield None
                return
            flush_folders(path)
            writer = CacheWriter(path, kept, lock)
            wait_for_lock(lock, fcntl.LOCK_UN)
            yield writer


def _begin(
    path: Path, manifest: Manifest, *, overwrite: bool = False, mixed: bool = False
) -> Manifest | None:
    """Make sure that an unfinished manifest is on disk and return it; None if the cache is complete."""
    require_no_links(path)
    if (path / MANIFEST).is_file():
        stored = read_manifest(path)
        kept = manifest_of(stored)
        if not overwrite:
            kept.require_same(manifest)
            # The manifest on disk stays as it is, down to the library versions that began it.
            if stored["complete"]:
                return None
            if not mixed:
                kept.require_same_device(manifest)
            return kept
        with unread(path / MANIFEST, hint=_READ):
            clear(path, kept)
    write_json(path / MANIFEST, unfinished(manifest))
    return manifest


def _existing_lock(path: Path) -> int | None:
    """Open the file that processes lock which share the directory; None if the cache was completed meanwhile."""
    with storage_errors(path), suppress(FileNotFoundError):
        return os.open(path / CLAIMS / "lock", os.O_RDWR | os.O_NOFOLLOW)
    if not read_manifest(path)["complete"]:
        raise CacheDamagedError(f"nobody has begun to write {path}", hint="begin it with `bancache dump`")
    return None


@contextmanager
def _inner_lock(path: Path) -> Iterator[int]:
    """Open the file that processes lock which share the directory; it is removed when the cache is complete."""
    descriptor = None
    while descriptor is None:
        with storage_errors(path):
            (path / CLAIMS).mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just completed the cache and removed it
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
                descriptor = os.open(path / CLAIMS / "lock", flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
