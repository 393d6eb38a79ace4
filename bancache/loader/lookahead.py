"""Lookahead: computes the next value in a thread while the current one is in use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar
from weakref import WeakMethod

T = TypeVar("T")


class Lookahead(Generic[T]):
    """Computes a function of a number, one value ahead if asked."""

    def __init__(self, compute: Callable[[int], T], *, name: str) -> None:
        """Call ``compute``, a method, for each number; thread ``name`` starts at the first ``prepare``.

        The method's owner usually owns this, too, and is not kept alive: a cycle would keep its tensors until Python
        looks for cycles.
        """
        self._compute = WeakMethod(compute)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"bancache-{name}")
        self._pending: tuple[int, Future[T]] | None = None

    def get(self, number: int) -> T:
        """Return the value of a number: the prepared one if it is for this number, else a new one."""
        if self._pending is not None:
            prepared, future = self._pending
            self._pending = None
            value = future.result()  # waits also for another number, so that one value is computed at a time
            if prepared == number:
                return value
        return self._method()(number)

    def prepare(self, number: int) -> None:
        """Start to compute the value of a number, unless a prepared value has not been taken yet."""
        if self._pending is None:
            self._pending = number, self._thread.submit(self._method(), number)

    def _method(self) -> Callable[[int], T]:
        method = self._compute()
        assert method is not None
        return method
