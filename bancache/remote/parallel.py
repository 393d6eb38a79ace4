"""Many transfers at once, since each of them waits for the network most of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

from bancache.system.progress import Progress
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
    progress: Progress,
    interrupt: Interrupt | None,
) -> None:
    """Call ``work`` for each shard in ``items``, in parallel; ``largest`` is the size of the largest object in bytes.

    Raises:
        StoppedError: ``interrupt``, checked after each shard, asks for a stop.
    """
    with progress.stage(verb, total=len(items), unit="shards") as stage:

        def done(count: int) -> None:
            stage.advance(1)
            if interrupt is not None:
                interrupt.check(f"{count} of {len(items)} shards")

        with Parallel(done).limit(largest) as parallel:
            for item in items:
                parallel.submit(work, item)
            parallel.drain()
