"""Check before a dump whether the cache will fit on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from bancache.cache.layout import Layout
from bancache.cache.manifest_io import MANIFEST, RECORDS, read_manifest
from bancache.errors import StorageError
from bancache.system.files import storage_errors

_PAGE_BYTES = 4096


def require_disk_space(out: Path, layout: Layout, bytes_per_pair: float, *, overwrite: bool) -> None:
    """Refuse a disk with less free space than the missing shards will take.

    Args:
        out: The cache's directory; it need not exist.
        layout: The cache's shards.
        bytes_per_pair: Estimate from the first batch.
        overwrite: Whether the existing cache is removed first.

    Raises:
        StorageError: With the needed and the free space.
    """
    shards = layout.count - (0 if overwrite else _done(out, layout.count))
    # A file for each field and a record, each with a last page that is half empty on average.
    files = shards * (len(layout.manifest.fields) + 1)
    needed = shards * layout.block * bytes_per_pair + files * _PAGE_BYTES / 2
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    with storage_errors(existing):
        free = shutil.disk_usage(existing).free
        if overwrite and out.is_dir():
            free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if needed > free:
        raise StorageError(
            f"{out} needs about {needed / 1e6:,.1f} MB more, but {existing} has {free / 1e6:,.1f} MB free",
            hint="free some space, choose another --out or a smaller --encoding, or skip this check with --force",
        )


def _done(out: Path, count: int) -> int:
    """Return the number of shards with a record; the records are not read."""
    if not (out / MANIFEST).is_file():
        return 0
    return count if read_manifest(out)["complete"] else len(list((out / RECORDS).glob("*.json")))
