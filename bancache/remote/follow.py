"""A copy that follows a dump: each shard goes to the object store as soon as it is recorded, behind the teacher's back."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, read_manifest
from bancache.cache.records import read_record, read_records
from bancache.errors import StoppedError, UsageError
from bancache.remote.bucket import Bucket
from bancache.remote.hold import held
from bancache.remote.many import at_once
from bancache.remote.push import Copy, Part, recorded, require_fit, send_all
from bancache.system.fingerprint import fingerprint_json
from bancache.system.progress import Progress, Silent


class _Follower:
    """Sends shards of a cache that is being written, a few at a time."""

    def __init__(self, path: Path, copy: Copy, pool: ThreadPoolExecutor, *, anew: bool) -> None:
        self._path, self._copy, self._pool, self._anew = path, copy, pool, anew
        self._layout: Layout | None = None
        self._promise, self._count = "", 1
        self._under_way: deque[Future[None]] = deque()

    def __call__(self, shard: Shard) -> None:
        """Send a shard that has just been recorded; wait while too many are on their way.

        Raises:
            StorageError: The store failed with this one or one before.
        """
        if self._layout is None:
            self._catch_up()
        else:
            record = read_record(self._path, self._layout, self._promise, shard.index)
            if record is not None:
                self._send(recorded(self._path, shard, record))

    def drain(self) -> None:
        """Wait until everything is there."""
        while self._under_way:
            self._under_way.popleft().result()

    def _catch_up(self) -> None:
        """Begin the copy, and send what earlier runs recorded."""
        manifest = Manifest.from_dict(read_manifest(self._path)["promise"])
        layout = self._layout = Layout(manifest)
        self._promise = fingerprint_json(manifest.to_dict())
        self._count = at_once(max(layout.chunk_bytes().values()))
        if self._anew and (there := self._copy.manifest()) is not None:
            self._copy.forget(Manifest.from_dict(there["promise"]))
        self._copy.begin(manifest)
        for index, record in read_records(self._path, layout, self._promise).items():
            self._send(recorded(self._path, layout.shard(index), record))

    def _send(self, part: Part) -> None:
        while len(self._under_way) >= self._count:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._copy.shard, *part))


@contextlib.contextmanager
def following(
    path: Path, bucket: Bucket, *, overwrite: bool = False, progress: Progress | None = None
) -> Iterator[Callable[[Shard], None]]:
    """Hold an address for the copy of a cache that is about to be written, and complete it when the cache is.

    Args:
        path: Where the cache is or will be.
        bucket: Where its copy goes.
        overwrite: Whether the dump starts anew, and with it the copy.
        progress: Is told of what is sent in the end.

    Yields:
        What to call with each shard that is recorded.

    Raises:
        MismatchError: Another cache is there.
        UsageError: The copy has shards that are not here.
        BusyError: Another process writes there.
        StorageError: The store fails for as long as it is tried; what was recorded stays.
    """
    progress = progress or Silent()
    with held(bucket) as hold, ThreadPoolExecutor(at_once(1), thread_name_prefix="bancache-copy") as pool:
        copy = Copy(path, bucket, hold)
        if not overwrite:
            _require_ahead(copy, path, bucket.address)
        # What is there is given up only when the dump has something to put in its place.
        follower = _Follower(path, copy, pool, anew=overwrite)
        try:
            yield follower
        except StoppedError:
            follower.drain()
            raise
        follower.drain()
        send_all(copy, path, progress)


def _require_ahead(copy: Copy, path: Path, address: str) -> None:
    """Refuse to begin where the copy is ahead of the cache: that is work somebody has done."""
    if copy.manifest() is None:
        return
    missing = copy.records()
    if (path / MANIFEST).is_file():
        stored = read_manifest(path)
        require_fit(copy, address, stored)
        layout = Layout(Manifest.from_dict(stored["promise"]))
        promise = fingerprint_json(layout.manifest.to_dict())
        missing -= (
            set(range(layout.count)) if stored["complete"] else set(read_records(path, layout, promise))
        )
        if not missing:
            return
    raise UsageError(
        f"the copy at {address} is ahead of {path}",
        hint=f"bancache pull {address} {path} brings it here first, or --overwrite starts anew",
    )
