"""Mirroring a dump: each shard goes to the object store as soon as it is recorded, while the teacher goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest
from bancache.cache.records import read_record, read_records
from bancache.errors import CacheDamagedError, StoppedError, UsageError
from bancache.remote.lease import leased
from bancache.remote.push import Part, RemoteCopy, part_of, recorded_parts, require_fit, send_all
from bancache.remote.transfer import Parallel
from bancache.system.bucket import Bucket
from bancache.system.progress import Progress


@contextlib.contextmanager
def mirrored(
    path: str | os.PathLike[str], bucket: Bucket, *, overwrite: bool = False, progress: Progress | None = None
) -> Iterator[Callable[[Shard], None]]:
    """Lease an address for the copy of a cache that is about to be written, and complete the copy with the cache.

    With ``overwrite`` the copy starts anew, as the dump does. ``progress`` counts the shards that are sent at the end.

    Yields:
        A function to call with each shard that is recorded; it waits while too many are under way.
    """
    path = Path(path)
    layout: Layout | None = None
    with leased(bucket) as lease, Parallel() as parallel:
        copy = RemoteCopy(path, bucket, lease)
        if not overwrite:
            _require_ahead(copy, path)

        def send(shard: Shard) -> None:
            nonlocal layout
            parts: list[Part] = []
            if layout is None:
                # With overwrite, the old copy is removed only now that the dump has a shard to put in its place.
                layout = _begin(copy, path, overwrite)
                parallel.limit(max(layout.chunk_bytes().values()))
                parts = recorded_parts(path, layout)
            elif (record := read_record(path, layout, shard.index)) is not None:
                parts = [part_of(path, shard, record)]
            for part in parts:
                parallel.submit(send_intact, part)

        def send_intact(part: Part) -> None:
            # One that is not as it was recorded is found and written again before the cache is complete, and sent then.
            with contextlib.suppress(CacheDamagedError):
                copy.send(part)

        try:
            yield send
        except StoppedError:
            parallel.drain()
            raise
        parallel.drain()
        send_all(copy, path, progress)


def _begin(copy: RemoteCopy, path: Path, anew: bool) -> Layout:
    layout = Layout(manifest_of(read_manifest(path)))
    if anew and (there := copy.manifest()) is not None:
        copy.forget(there)
    copy.begin(layout.manifest)
    return layout


def _require_ahead(copy: RemoteCopy, path: Path) -> None:
    """Require that the cache has every shard that the copy has: a dump must not discard finished work."""
    if copy.manifest() is None:
        return
    missing = copy.recorded_shards()
    if (path / MANIFEST).is_file():
        stored = read_manifest(path)
        require_fit(copy, stored)
        layout = Layout(manifest_of(stored))
        if not stored["complete"]:
            missing -= set(read_records(path, layout))
        if stored["complete"] or not missing:
            return
    raise UsageError(
        f"the copy at {copy.address} is ahead of {path}",
        hint=f"bancache pull {copy.address} {path} brings it here first, or --overwrite starts anew",
    )
