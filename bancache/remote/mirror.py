"""Mirroring a dump: each shard goes to the object store as soon as it is recorded, while the teacher goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest
from bancache.cache.records import read_record, read_records
from bancache.errors import StoppedError, UsageError
from bancache.remote.bucket import Bucket
from bancache.remote.lease import leased
from bancache.remote.parallel import Parallel
from bancache.remote.push import RemoteCopy, part_of, recorded_parts, require_fit, send_all
from bancache.system.progress import Progress, Silent


class _Mirror:
    """Sends shards of a cache that is being written, a few at a time."""

    def __init__(self, path: Path, copy: RemoteCopy, parallel: Parallel, *, anew: bool) -> None:
        self._path, self._copy, self._parallel, self._anew = path, copy, parallel, anew
        self._layout: Layout | None = None

    def __call__(self, shard: Shard) -> None:
        """Send a shard that has just been recorded; wait while too many are under way.

        Raises:
            StorageError: The store failed with this shard or an earlier one.
        """
        if self._layout is None:
            self._layout = self._begin()
            return
        record = read_record(self._path, self._layout, self._layout.manifest.fingerprint, shard.index)
        if record is not None:
            self._parallel.submit(self._copy.send, part_of(self._path, shard, record))

    def _begin(self) -> Layout:
        """Begin the copy, and send all shards that are recorded by now."""
        layout = Layout(manifest_of(read_manifest(self._path)))
        self._parallel.limit(max(layout.chunk_bytes().values()))
        if self._anew and (there := self._copy.manifest()) is not None:
            self._copy.forget(there)
        self._copy.begin(layout.manifest)
        for part in recorded_parts(self._path, layout):
            self._parallel.submit(self._copy.send, part)
        return layout


@contextlib.contextmanager
def mirrored(
    path: str | os.PathLike[str],
    bucket: Bucket,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Iterator[Callable[[Shard], None]]:
    """Lease an address for the copy of a cache that is about to be written, and complete the copy with the cache.

    Args:
        path: The cache's directory; it need not exist yet.
        bucket: The address of the copy.
        overwrite: Whether the dump starts anew, and with it the copy.
        progress: Counts the shards that are sent at the end.

    Yields:
        A function to call with each shard that is recorded.

    Raises:
        MismatchError: The address holds another cache.
        UsageError: The copy has shards that the cache has not.
        BusyError: Another process is writing to the address.
        StorageError: The store keeps failing; recorded shards stay on disk.
    """
    path = Path(path)
    with leased(bucket) as lease, Parallel() as parallel:
        copy = RemoteCopy(path, bucket, lease)
        if not overwrite:
            _require_ahead(copy, path)
        # With overwrite, the old copy is removed only when the dump has a shard to put in its place.
        try:
            yield _Mirror(path, copy, parallel, anew=overwrite)
        except StoppedError:
            parallel.drain()
            raise
        parallel.drain()
        send_all(copy, path, progress or Silent())


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
            missing -= set(read_records(path, layout, layout.manifest.fingerprint))
        if stored["complete"] or not missing:
            return
    raise UsageError(
        f"the copy at {copy.address} is ahead of {path}",
        hint=f"bancache pull {copy.address} {path} brings it here first, or --overwrite starts anew",
    )
