"""What push and pull have in common: transfers in threads, their result, and the check that two caches are copies of one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from bancache.cache.manifest_io import manifest_of
from bancache.errors import MismatchError
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt

Item = TypeVar("Item")

AT_ONCE = 8
_MEMORY = 256 << 20


class Parallel:
    """Runs transfers in threads, a few at a time.

    Leaving it early drops the transfers that have not begun and waits for those under way.
    """

    def __init__(self, done: Callable[[int], object] = lambda count: None) -> None:
        """Call ``done`` in the caller's thread after each transfer, with how many have ended."""
        self._done, self._count, self._limit = done, 0, AT_ONCE
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bancache-transfer")
        self._under_way: deque[Future[Any]] = deque()

    def limit(self, largest: int) -> Self:
        """Let as few run at once as hold 256 MiB in memory, with objects of at most ``largest`` bytes."""
        self._limit = max(1, min(AT_ONCE, _MEMORY // max(1, largest)))
        return self

    def submit(self, work: Callable[..., object], *args: object) -> None:
        """Begin a transfer; wait first while too many are under way, and raise what one of them raised."""
        self._wait(self._limit - 1)
        self._under_way.append(self._pool.submit(work, *args))

    def drain(self) -> None:
        """Wait for all transfers, and raise what one of them raised."""
        self._wait(0)

    def _wait(self, left: int) -> None:
        while len(self._under_way) > left:
            self._under_way.popleft().result()
            self._count += 1
            self._done(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def transfer_all(
    verb: str,
    work: Callable[[Item], object],
    items: Sequence[Item],
    *,
    largest: int,
    progress: Progress | None,
    interrupt: Interrupt | None,
) -> None:
    """Call ``work`` for each shard in ``items``, in parallel; ``largest`` is the size of the largest object in bytes."""
    with (progress or Silent()).stage(verb, total=len(items), unit="shards") as stage:

        def done(count: int) -> None:
            stage.advance(1)
            if interrupt is not None:
                interrupt.check(f"{count} of {len(items)} shards")

        with Parallel(done).limit(largest) as parallel:
            for item in items:
                parallel.submit(work, item)
            parallel.drain()


@dataclass
class Transferred:
    """Result of a push or a pull."""

    complete: bool = False  # whether the cache at the destination is complete now
    moved: int = 0  # files that were transferred
    kept: int = 0  # files that were there already
    bytes: int = 0  # of the files that were transferred
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, size: int, *, kept: bool) -> None:
        """Count a file; threads may call this at once."""
        with self._lock:
            if kept:
                self.kept += 1
            else:
                self.moved, self.bytes = self.moved + 1, self.bytes + size


def require_same_cache(place: object, stored: dict[str, Any], given: dict[str, Any], *, hint: str) -> None:
    """Require that the manifest.json at a destination and that of the source belong to copies of one cache."""
    manifest_of(stored).require_same(manifest_of(given))
    pairs = [("manifest", stored["promise"], given["promise"])]
    if stored["complete"] and given["complete"]:
        pairs.append(("content", stored, given))
    for subject, old, new in pairs:
        if (one := fingerprint_json(old)) != (other := fingerprint_json(new)):
            raise MismatchError.between(
                f"{place}: {subject}", stored=f"'{short(one)}'", given=f"'{short(other)}'", hint=hint
            )
