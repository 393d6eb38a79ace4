"""Who may write a cache, and when: alone to begin with, then with whoever joins."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bancache.cache.directory import clean, clear, require_no_links, require_ours, settle, tidy
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import FILES_LIMIT, MANIFEST, read_manifest, unfinished
from bancache.cache.writer import CacheWriter
from bancache.errors import UsageError
from bancache.system.files import make_directory, storage_errors, write_json
from bancache.system.locks import CLAIMS, exclusive, shared

_HELP = "help it with --join, wait for it, or choose another --out"


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
    """Begin where others may be writing; one at a time, while nobody writes a shard."""
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
