"""Putting a new cache in the place of an old one: beside it first, then by name, the old one removed last.

    gen0.zarr                      the old one
    gen0.zarr.growing              the new one, until it is complete
    .gen0.zarr.<digest>.replaced   the old one, between the two renamings and until it is removed

Two renamings are not one: a kill between them leaves no ``gen0.zarr``, but both complete, and ``recover`` finishes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bancache.cache.manifest_io import MANIFEST, read_manifest
from bancache.errors import CacheDamagedError
from bancache.system.files import storage_errors, sync_directory
from bancache.system.fingerprint import short
from bancache.system.locks import exclusive, exclusive_file

GROWING = ".growing"


def beside(path: Path) -> Path:
    """Return where the new cache is made."""
    return path.with_name(path.name + GROWING)


def recover(path: Path) -> None:
    """Finish an exchange that was killed; do nothing where there is none.

    Raises:
        BusyError: It is going on: another process is at it.
        StorageError: The disk is full, read-only or failing.
    """
    if _replaced(path):
        with exclusive_file(beside(path)):
            _finish(path)


def exchange(path: Path, digest: str) -> None:
    """Put the complete cache that lies beside ``path`` in its place, and remove the old one.

    The caller holds ``beside(path)`` by ``exclusive_file``, so that nobody else makes it, or recovers, meanwhile.

    Args:
        path: The old cache.
        digest: What it was when the new one was begun.

    Raises:
        CacheDamagedError: The old one is another by now; both are left as they are.
        BusyError: Another process is writing the old one.
    """
    aside = path.with_name(f".{path.name}.{short(digest)}.replaced")
    with exclusive(path):
        if read_manifest(path)["digest"] != digest:
            raise CacheDamagedError(
                f"{path} was changed meanwhile", hint=f"{beside(path)} is complete; decide which one to keep"
            )
        # What its writer removed at the end must not come back under the new name.
        with storage_errors(path):
            sync_directory(beside(path))
        _rename(path, aside)
        _rename(beside(path), path)
    _finish(path)


def _finish(path: Path) -> None:
    if not path.exists() and (beside(path) / MANIFEST).is_file() and read_manifest(beside(path))["complete"]:
        _rename(beside(path), path)
    if (path / MANIFEST).is_file() and read_manifest(path)["complete"]:
        with storage_errors(path):
            for old in _replaced(path):
                shutil.rmtree(old)


def _replaced(path: Path) -> list[Path]:
    # Compared as text: a cache's name may hold what a pattern means something else by.
    start, end = f".{path.name}.", ".replaced"
    if not path.parent.is_dir():
        return []
    return sorted(e for e in path.parent.iterdir() if e.name.startswith(start) and e.name.endswith(end))


def _rename(old: Path, new: Path) -> None:
    with storage_errors(new):
        old.rename(new)
        sync_directory(new.parent)
