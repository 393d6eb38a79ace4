"""Work in threads whose results come in order, a few ahead of what is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Iterator[Result]:
    """Yield ``work(item)`` of each item in order; at most ``at_once`` are under way or wait to be taken.

    >>> list(in_threads(abs, [-1, -2, -3], at_once=2))
    [1, 2, 3]
    """
    pool, under_way = (
        ThreadPoolExecutor(at_once, thread_name_prefix="bancache-ahead"),
        deque[Future[Result]](),
    )
    try:
        for item in items:
            if len(under_way) == at_once:
                yield under_way.popleft().result()
            under_way.append(pool.submit(work, item))
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
