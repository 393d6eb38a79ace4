"""Lets a CPU take the steps of a training as a GPU replays them."""

from __future__ import annotations

import pytest
import torch

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
