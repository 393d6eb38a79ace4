"""Work on a CUDA device, captured once as a graph and replayed with one launch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import torch

# In the first rounds SGD creates its buffers, cuDNN selects its kernels and triton compiles.
WARM_UPS = 3
DEVICE_TYPES = ("cuda",)  # devices that can capture
_CALLS, _ROUNDS = 10, 5

Replay = Callable[[], None]


def can_capture(device: torch.device) -> bool:
    """Whether work on a device can be captured at all."""
    return device.type in DEVICE_TYPES


def capture(body: Replay, device: torch.device, *, warm_ups: int = WARM_UPS) -> Replay:
    """Run ``body`` a few times on a CUDA device, capture it, and return a function that replays it.

    torch raises RuntimeError if an operation cannot be captured.
    """
    before = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            body()
    before.wait_stream(stream)
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.device(device):
        try:
            # Capture only this thread: another thread reads the targets of the next view index.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                body()
        except BaseException:
            _clear_up(before, pool)
            raise
    replay: Replay = graph.replay
    return replay


def _clear_up(before: torch.cuda.Stream, pool: Any) -> None:
    """Undo what torch, as of 2.11, leaves of a capture that failed: its stream, its pool and the generator's state.

    With the pool open, memory that other streams used is never free again. A generator that waits for the end of a
    capture refuses to draw; it gets one.
    """
    torch.cuda.set_stream(before)
    device = torch.cuda.current_device()
    with suppress(RuntimeError, AttributeError):  # newer versions do it, or call these otherwise
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
    something = torch.empty(1, device=before.device)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        something.zero_()


def seconds(replay: Replay, device: torch.device) -> float:
    """Return how long a call takes when others follow it, in seconds: a median of some rounds."""
    taken = []
    for _ in range(_ROUNDS):
        _wait(device)
        before = monotonic()
        for _ in range(_CALLS):
            replay()
        _wait(device)
        taken.append((monotonic() - before) / _CALLS)
    return statistics.median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
