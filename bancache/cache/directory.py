"""A cache's directory before, while and after it is written: whether it may be used, flushing, and cleaning up."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from bancache.cache.digests import digest_of, inspect_file
from bancache.cache.layout import METADATA
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, RECORDS, read_manifest, require_local, unfinished
from bancache.errors import CacheDamagedError, UsageError
from bancache.system.files import (
    TEMPORARY_SUFFIX,
    files_below,
    make_directory,
    remove_temporaries,
    storage_errors,
    sync_directory,
    write_atomically,
    write_json,
)
from bancache.system.locks import CLAIMS, HOLDER

# What systems put into folders: they make no folder anybody's.
_SYSTEMS_OWN = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*", "lost+found", ".directory", "@eaDir")


class Folders:
    """Makes folders below a cache's directory durably.

    A folder that exists may have been made and not yet flushed by another process, so it is flushed all the same.
    """

    def __init__(self, root: Path, *, flushed: bool = True) -> None:
        """Take the folders that exist now for flushed; without ``flushed``, only ``root``, and nothing is listed."""
        below = (Path(folder) for folder, _, _ in os.walk(root)) if flushed else ()
        self._flushed = {root, *root.parents, *below}

    def make(self, folder: Path) -> None:
        """Make a folder and its parents."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for one in reversed([one for one in (folder, *folder.parents) if one not in self._flushed]):
                sync_directory(one.parent)
                self._flushed.add(one)


def write_file(root: Path, key: str, content: bytes) -> None:
    """Write a file of a cache, and its folder, durably."""
    make_directory((root / key).parent)
    write_atomically(root / key, content)


def write_metadata(path: Path, described: Mapping[str, bytes]) -> None:
    """Write the zarr.json files of ``describe_arrays`` that are missing from a cache or differ."""
    for key, content in described.items():
        if inspect_file(path, key, digest_of(content)) is not None:
            write_file(path, key, content)


def require_ours(path: Path) -> None:
    """Refuse a path that holds anything but a cache or what a killed writer of one left."""
    require_local(path, to_write=True)
    with storage_errors(path):
        strange = path.exists() and (not path.is_dir() or any(not _is_left_over(e) for e in path.iterdir()))
        # Last: another process may be beginning the cache.
        if (path / MANIFEST).is_file():
            read_manifest(path)
        elif strange:
            raise UsageError(f"{path} exists and is not a cache", hint="choose another --out")


def _is_left_over(entry: Path) -> bool:
    ours = entry.name in (HOLDER, CLAIMS) or entry.name.endswith(TEMPORARY_SUFFIX)
    return ours or any(fnmatch(entry.name, pattern) for pattern in _SYSTEMS_OWN)


def require_no_links(path: Path) -> None:
    """Refuse a cache with links: a writer would write or remove files outside it."""
    for folder, names, _ in os.walk(path):
        for name in names:
            if (link := Path(folder) / name).is_symlink():
                raise CacheDamagedError(f"{link} is a link", hint="put the folder itself there")


def flush_folders(path: Path) -> None:
    """Flush every folder of a cache: a killed writer may not have done that."""
    with storage_errors(path):
        sync_directory(path.parent)
        for folder, _, _ in os.walk(path):
            sync_directory(Path(folder))


def remove_leftovers(path: Path) -> None:
    """Remove claims and half-written files of killed writers; no other process may be writing."""
    with storage_errors(path):
        remove_temporaries(path)
    _discard(path / CLAIMS)


def remove_working_files(path: Path) -> None:
    """Remove what a complete cache does not need: records, claims and half-written files."""
    _discard(path / RECORDS)
    remove_leftovers(path)


def clear(path: Path, kept: Manifest) -> None:
    """Remove the files of a cache and no others, except its manifest, which says "unfinished" first."""
    write_json(path / MANIFEST, unfinished(kept))
    for name in (RECORDS, CLAIMS, *(field.name for field in kept.fields)):
        _discard(path / name)
    with storage_errors(path):
        (path / METADATA).unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Remove a folder, even if another process removes it, or puts a last file into it, at the same time.

    NFS keeps a file that is open, here or elsewhere, under another name until it is closed; its folder stays.
    """
    while folder.is_dir():
        with storage_errors(folder):
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                    raise
                if all(fnmatch(file.name, ".nfs*") for file in files_below(folder)):
                    return
