"""A capture that fails leaves nothing behind: the next one works, and so do random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from bancache.system.capturing import capture

CPU = torch.device("cpu")


class Captures:
    """What torch 2.11 keeps while it captures. If the end of a capture fails, all of it stays."""

    def __init__(self) -> None:
        self.stream, self.drawing, self.pools = self.main, True, list[object]()

    class Stream:
        device = CPU

        def wait_stream(self, other: object) -> None:
            pass

    main = Stream()

    @contextmanager
    def graph(self, graph: object, pool: object = None, capture_error_mode: str = "") -> Iterator[None]:
        pool = pool or object()
        before, self.stream, self.drawing = self.stream, self.Stream(), False
        self.pools.append(pool)
        try:
            yield
        except ValueError as error:
            raise RuntimeError("operation failed due to a previous error during capture") from error
        self.pools.remove(pool)
        self.stream, self.drawing = before, True

    def end(self, device: int, pool: object) -> None:
        if pool not in self.pools:
            raise RuntimeError("not currently recording")
        self.pools.remove(pool)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    found = Captures()
    stand_ins: dict[str, Any] = {
        "current_stream": lambda device: found.stream,
        "set_stream": lambda stream: setattr(found, "stream", stream),
        "current_device": lambda: 0,
        "Stream": lambda device: found.Stream(),
        "stream": nullcontext,
        "device": nullcontext,
        "CUDAGraph": lambda: type("Graph", (), {"replay": lambda self: None})(),
        "graph": found.graph,
        "graph_pool_handle": object,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", found.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: None, raising=False)
    return found


def fails() -> None:
    raise ValueError("operation not permitted when stream is capturing")


def test_after_a_capture_that_failed_torch_is_as_before(captures: Captures) -> None:
    with pytest.raises(RuntimeError):
        capture(fails, CPU, warm_ups=0)
    assert (captures.stream, captures.drawing, captures.pools) == (captures.main, True, [])


def test_a_torch_that_has_no_such_functions_still_says_what_failed(
    captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are internal, and an earlier version called them otherwise. Where a capture fails, models run without."""
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    with pytest.raises(RuntimeError, match="previous error during capture"):
        capture(fails, CPU, warm_ups=0)
    assert captures.stream is captures.main
    assert captures.drawing


def test_a_capture_that_works_is_replayed_after_its_rounds(captures: Captures) -> None:
    rounds: list[int] = []
    capture(lambda: rounds.append(1), CPU, warm_ups=2)()
    assert len(rounds) == 3
    assert (captures.stream, captures.drawing, captures.pools) == (captures.main, True, [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_draws_and_captures_go_on_after_one_that_failed() -> None:
    device, other = torch.device("cuda"), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    count = torch.zeros(1, device=device)

    def waits() -> None:
        count.add_(1).item()

    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        capture(waits, device, warm_ups=0)
    assert torch.cuda.current_stream() == before
    torch.rand(2, device=device)
    used = torch.empty(1 << 26, device=device)
    used.record_stream(other)
    held = torch.cuda.memory_stats()["active_bytes.all.current"]
    del used
    torch.cuda.synchronize()
    torch.empty(1, device=device)  # the allocator looks at what other streams have done
    assert torch.cuda.memory_stats()["active_bytes.all.current"] < held - (1 << 26)

    def counts() -> None:
        count.add_(1)

    replay = capture(counts, device, warm_ups=0)
    count.zero_()
    replay()
    assert count.item() == 1
