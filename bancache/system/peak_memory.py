"""How much memory tensors take at one time while some work is done."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_bytes(work: Callable[[], object]) -> int:
    """Run ``work`` and return the largest number of bytes that the tensors made in it took at one time.

    What kernels of torch take for themselves is not counted.
    """
    tally = _Tally()
    with tally:
        work()
    return tally.peak


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of tensors while they live."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it, torch would import it, which takes seconds; nothing is compiled here

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._living: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._living:
            self._living.add(id(storage))
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, id(storage), storage.nbytes()).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._living.discard(key)
        self._now -= size
