"""Lets a CPU take the steps of a training as a GPU replays them."""

from __future__ import annotations

import pytest
import torch

from bancache.dumping import captured
from bancache.system import capturing
from bancache.system.capturing import WARM_UPS, Replay
from bancache.training import cuda_graph as graph


def pretend_to_capture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a CPU pretend to capture; the list counts the replays of each capture."""
    counts: list[int] = []

    def call_again(body: Replay, device: torch.device) -> Replay:
        for _ in range(
            WARM_UPS + 1
        ):  # on a GPU the capture itself changes nothing; here it does, and put_back undoes it
            body()
        counts.append(0)

        def again() -> None:
            counts[-1] += 1
            body()

        return again

    monkeypatch.setattr(graph, "capture", call_again)
    monkeypatch.setattr(capturing, "DEVICE_TYPES", ("cuda", "cpu"))
    return counts


def pretend_to_dump_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make dumps on a CPU take the way of a GPU; the list counts the replays of each teacher."""
    counts: list[int] = []

    def call_again(body: Replay, device: torch.device, *, warm_ups: int = WARM_UPS) -> Replay:
        for _ in range(warm_ups + 1):
            body()
        counts.append(0)

        def again() -> None:
            counts[-1] += 1
            body()

        return again

    monkeypatch.setattr(captured, "capture", call_again)
    monkeypatch.setattr(captured, "DEVICE_TYPES", ("cuda", "cpu"))
    return counts
