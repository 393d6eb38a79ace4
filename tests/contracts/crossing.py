"""Sees what would wait on a GPU, on a machine without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bancache.views import factory


class Operations(TorchDispatchMode):
    """Counts the operations, and names those that have tensors on two devices: copies, for which a host may wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.crossing: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, torch.Tensor)]
        self.count += 1
        if len({each.device.type for each in tensors}) > 1:
            self.crossing.append(str(func))
        return out


@contextmanager
def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Operations]:
    """Let tensors be on ``cuda``, with shapes and without values: what reads a value fails. Views are torch's."""
    monkeypatch.setattr(factory, "_has_kernel", lambda device: False)
    with FakeTensorMode(allow_non_fake_inputs=True), Operations() as operations:
        yield operations
