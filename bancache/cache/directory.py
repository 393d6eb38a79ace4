"""A cache's folder before and after it is written: whose it is, what is on disk, what has to go."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from bancache.cache.layout import METADATA
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, RECORDS, read_manifest, require_local, unfinished
from bancache.errors import CacheDamagedError, UsageError
from bancache.system.files import (
    TEMPORARY_SUFFIX,
    remove_temporaries,
    storage_errors,
    sync_directory,
    write_json,
)
from bancache.system.locks import CLAIMS, HOLDER


def require_ours(path: Path) -> None:
    """Refuse a place where there is anything that no writer of caches left, however early it was killed."""
    require_local(path, to_write=True)
    with storage_errors(path):
        strange = path.exists() and (not path.is_dir() or any(not _is_left_over(e) for e in path.iterdir()))
        # Looked for last: another process may be beginning the cache.
        if (path / MANIFEST).is_file():
            read_manifest(path)
        elif strange:
            raise UsageError(f"{path} exists and is not a cache", hint="choose another --out")


def _is_left_over(entry: Path) -> bool:
    return entry.name in (HOLDER, CLAIMS) or entry.name.endswith(TEMPORARY_SUFFIX)


def require_no_links(path: Path) -> None:
    """Refuse folders that lead out of the cache: what is written or removed there would be somebody else's."""
    for folder, names, _ in os.walk(path):
        for name in names:
            if (link := Path(folder) / name).is_symlink():
                raise CacheDamagedError(f"{link} is a link", hint="put the folder itself there")


def settle(path: Path) -> None:
    """Flush the folders that an earlier writer may have made and not flushed.

    Only whoever flushed a folder may build on its being there; a writer that was killed told nobody.
    """
    with storage_errors(path):
        sync_directory(path.parent)
        for folder, _, _ in os.walk(path):
            sync_directory(Path(folder))


def clean(path: Path) -> None:
    """Remove what killed writers left half written, and their claims; nobody may be writing."""
    with storage_errors(path):
        remove_temporaries(path)
    _discard(path / CLAIMS)


def tidy(path: Path) -> None:
    """Remove what a complete cache does not need: records that the manifest has, what killed writers left."""
    _discard(path / RECORDS)
    clean(path)


def clear(path: Path, kept: Manifest) -> None:
    """Remove what a cache consists of and nothing else, the manifest excepted, which is replaced afterwards.

    It first says that the cache is unfinished: killed in between, that is what is left.
    """
    write_json(path / MANIFEST, unfinished(kept))
    for name in (RECORDS, CLAIMS, *(field.name for field in kept.fields)):
        _discard(path / name)
    with storage_errors(path):
        (path / METADATA).unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Remove a folder, also when another process removes it or puts a last file there meanwhile."""
    while folder.is_dir():
        with storage_errors(folder), contextlib.suppress(FileNotFoundError):
            try:
                shutil.rmtree(folder)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
