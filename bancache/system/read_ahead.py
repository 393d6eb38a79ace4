"""Work that threads do ahead of whoever uses its results, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

THREAD_NAME = "bancache-pictures"
_MOST_THREADS = 32


def num_threads() -> int:
    """Return one thread for each core that this process may use, up to 32."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(_MOST_THREADS, len(affinity(0)) if affinity else os.cpu_count() or 1)


def in_order(
    jobs: Iterable[Callable[[], T]], *, ahead: int, threads: int | None = None
) -> Generator[T, None, None]:
    """Yield the result of each job in order, whichever is done first; at most ``ahead`` jobs are done before their turn.

    A job is taken from ``jobs`` in the caller's thread, when it is begun. What a job raises is raised at its turn. With the
    last result, or when the iterator is closed, no thread is left.
    """
    pool = ThreadPoolExecutor(threads or num_threads(), thread_name_prefix=THREAD_NAME)
    begun: deque[Future[T]] = deque()
    try:
        for job in jobs:
            begun.append(pool.submit(job))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            result = begun.popleft().result()
            if not begun:
                pool.shutdown()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(work: Callable[[Item], T], items: Iterable[Item], at_once: int) -> Generator[T, None, None]:
    """Yield ``work(item)`` of each item in order; at most ``at_once`` are under way or wait to be taken.

    >>> list(in_threads(abs, [-1, -2, -3], at_once=2))
    [1, 2, 3]
    """
    return in_order((partial(work, item) for item in items), ahead=at_once - 1, threads=at_once)
