"""Lets a CPU take the steps of a training as a GPU replays them."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from bancache.dumping import captured
from bancache.system import capturing
from bancache.system.capturing import WARM_UPS, Replay
from bancache.training import cuda_graph as graph


def pretend_to_capture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a CPU pretend to capture; the list counts the replays of each capture."""
    monkeypatch.setattr(capturing, "DEVICE_TYPES", ("cuda", "cpu"))
    return _call_again(monkeypatch, graph)


def pretend_to_dump_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make dumps on a CPU take the way of a GPU; the list counts the replays of each teacher."""
    monkeypatch.setattr(captured, "DEVICE_TYPES", ("cuda", "cpu"))
    return _call_again(monkeypatch, captured)


def _call_again(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[int]:
    """Let the module call again what it would capture; return a list that gets a count of calls for each capture."""
    counts: list[int] = []

    def capture(body: Replay, device: torch.device, *, warm_ups: int = WARM_UPS) -> Replay:
        # On a GPU the capture itself changes nothing. Here it does, and put_back undoes it.
        for _ in range(warm_ups + 1):
            body()
        counts.append(0)
        number = len(counts) - 1

        def again() -> None:
            counts[number] += 1
            body()

        return again

    monkeypatch.setattr(module, "capture", capture)
    return counts
