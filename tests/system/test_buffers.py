"""Memory is used again only when no tensor shares it any more."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import torch

from bancache.system.buffers import BufferPool


def test_two_tensors_that_live_never_share_memory() -> None:
    pool = BufferPool(limit=2)
    alive = [pool.take((8, 3), np.float32) for _ in range(5)]
    assert len({t.data_ptr() for t in alive}) == 5
    assert all(t.data_ptr() % 64 == 0 for t in alive[:2])


def test_memory_comes_back_when_the_last_view_of_it_is_gone() -> None:
    pool = BufferPool()
    first = pool.take((8, 3), np.float32)
    place, piece = first.data_ptr(), first.permute(1, 0)[1:].numpy()
    del first
    assert pool.take((8, 3), np.float32).data_ptr() != place  # an array still looks at it
    del piece
    assert pool.take((8, 3), np.float32).data_ptr() == place


def test_memory_that_autograd_keeps_for_the_backward_pass_is_not_used_again() -> None:
    pool = BufferPool()
    weight = torch.ones(3, requires_grad=True)
    shown = pool.take((8, 3), np.float32).fill_(2)
    place, loss = shown.data_ptr(), (shown * weight).sum()
    del shown
    assert pool.take((8, 3), np.float32).fill_(5).data_ptr() != place
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [16, 16, 16]
    del loss
    again = [pool.take((8, 3), np.float32) for _ in range(2)]
    assert place in {tensor.data_ptr() for tensor in again}


def test_a_buffer_of_another_size_replaces_an_unused_one() -> None:
    pool = BufferPool(limit=1)
    pool.take((4,), np.float32)
    large = pool.take((400,), np.float32)
    place = large.data_ptr()
    del large
    assert pool.take((400,), np.float32).data_ptr() == place


def test_a_tensor_outlives_the_pool() -> None:
    pool = BufferPool()
    tensor = pool.take((4,), np.float32).fill_(7)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert tensor.tolist() == [7, 7, 7, 7]


def test_an_empty_tensor_needs_no_buffer() -> None:
    assert BufferPool().take((0, 5), np.float32).shape == (0, 5)
