"""Many small transfers at a time, since each waits for its answer most of the time."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_AT_ONCE = 8
_MEMORY = 256 << 20


def at_once(largest: int) -> int:
    """Return how many objects of at most ``largest`` bytes are moved at a time without filling the memory."""
    return max(1, min(_AT_ONCE, _MEMORY // max(1, largest)))


@contextlib.contextmanager
def each(items: Iterable[Item], work: Callable[[Item], None], *, count: int) -> Iterator[Iterator[None]]:
    """Do some work for each item, ``count`` at a time; whoever leaves early waits for what is under way, no more.

    Yields:
        An iterator that comes by once for each item that is done, and raises what the work raised.
    """
    with ThreadPoolExecutor(count, thread_name_prefix="bancache-move") as pool:
        under_way: deque[Future[None]] = deque()

        def done() -> Iterator[None]:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) >= count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

        try:
            yield done()
        finally:
            for future in under_way:
                future.cancel()
