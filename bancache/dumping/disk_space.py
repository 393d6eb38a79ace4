"""Whether a dump fits where it shall go, judged before it is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

from bancache.cache.layout import Layout
from bancache.cache.manifest_io import MANIFEST, RECORDS, read_manifest
from bancache.errors import StorageError
from bancache.system.files import storage_errors

_PAGE_BYTES = 4096


def require_room(out: Path, layout: Layout, bytes_per_entry: float, *, overwrite: bool) -> None:
    """Refuse a place that has not as much room as what is missing of a cache will take.

    Args:
        out: The cache's directory; it need not be there.
        layout: Its shards.
        bytes_per_entry: As estimated from a few.
        overwrite: Whether what is there goes first.

    Raises:
        StorageError: It cannot fit; the message says what it needs and what there is.
    """
    shards = layout.count - (0 if overwrite else _done(out, layout.count))
    # A file for each field and a record, each with a last page that is half empty on average.
    files = shards * (len(layout.manifest.fields) + 1)
    needed = shards * layout.block * bytes_per_entry + files * _PAGE_BYTES / 2
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    with storage_errors(place):
        free = shutil.disk_usage(place).free
        if overwrite and out.is_dir():
            free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if needed > free:
        raise StorageError(
            f"what is missing of {out} takes about {needed / 1e6:,.1f} MB, and {place} has {free / 1e6:,.1f} MB",
            hint="make room, choose another --out or a smaller --encoding, or try all the same with --force",
        )


def _done(out: Path, count: int) -> int:
    """Return how many shards are done, as far as names tell."""
    if not (out / MANIFEST).is_file():
        return 0
    return count if read_manifest(out)["complete"] else len(list((out / RECORDS).glob("*.json")))
