"""Memory is handed out again only when nobody can tell."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import torch

from bancache.system.buffers import BufferPool


def test_two_tensors_that_live_never_share_memory() -> None:
    memory = BufferPool(blocks=2)
    alive = [memory.take((8, 3), np.float32) for _ in range(5)]
    assert len({t.data_ptr() for t in alive}) == 5
    assert all(t.data_ptr() % 64 == 0 for t in alive[:2])


def test_memory_comes_back_when_the_last_view_of_it_is_gone() -> None:
    memory = BufferPool()
    first = memory.take((8, 3), np.float32)
    place, piece = first.data_ptr(), first.permute(1, 0)[1:].numpy()
    del first
    assert memory.take((8, 3), np.float32).data_ptr() != place  # an array still looks at it
    del piece
    assert memory.take((8, 3), np.float32).data_ptr() == place


def test_what_autograd_keeps_for_its_backward_pass_is_in_use() -> None:
    memory = BufferPool()
    weight = torch.ones(3, requires_grad=True)
    shown = memory.take((8, 3), np.float32).fill_(2)
    place, loss = shown.data_ptr(), (shown * weight).sum()
    del shown
    assert memory.take((8, 3), np.float32).fill_(5).data_ptr() != place
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [16, 16, 16]
    del loss
    again = [memory.take((8, 3), np.float32) for _ in range(2)]
    assert place in {tensor.data_ptr() for tensor in again}


def test_another_size_takes_the_place_of_one_that_nobody_uses() -> None:
    memory = BufferPool(blocks=1)
    memory.take((4,), np.float32)
    large = memory.take((400,), np.float32)
    place = large.data_ptr()
    del large
    assert memory.take((400,), np.float32).data_ptr() == place


def test_it_goes_with_its_owner() -> None:
    memory = BufferPool()
    tensor = memory.take((4,), np.float32).fill_(7)
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None
    assert tensor.tolist() == [7, 7, 7, 7]


def test_nothing_is_as_large_as_nothing() -> None:
    assert BufferPool().take((0, 5), np.float32).shape == (0, 5)
