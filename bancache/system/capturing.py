"""Work on a CUDA device, captured once as a graph and replayed with one launch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import monotonic

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
    graph = torch.cuda.CUDAGraph()
    try:
        # Capture only this thread: another thread reads the targets of the next view index.
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            body()
    finally:
        # Some versions of torch leave the stream of a failed capture in its place.
        if torch.cuda.current_stream(device) != before:
            torch.cuda.set_stream(before)
    replay: Replay = graph.replay
    return replay


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
