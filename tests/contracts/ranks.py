"""Commands that run as the ranks of one training, and how far they have come."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contracts.killing import Forker

from bancache.checkpoint import load_tensors
from bancache.errors import CheckpointError

Ends = list[tuple[int, str]]
# A machine need not know its own name.
NEAR = {"GLOO_SOCKET_IFNAME": "lo"}


def together(forker: Forker, *commands: list[str], signals: Sequence[Any] = (), **more: Any) -> Ends:
    """Run commands as the ranks of one training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {**NEAR, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    count = str(len(commands))
    places = [{**meet, "RANK": str(rank), "WORLD_SIZE": count} for rank in range(len(commands))]
    return forker.run_together(list(commands), signals=signals, environments=places, **more)


def reached(out: Path, steps: int, *, an_epoch: int = 6) -> Callable[[], bool]:
    """Whether the state beside ``out`` has come so far and was saved since this was called, or training is over.

    Who saved it has met all the others.
    """
    path = out.with_name(f"{out.name}.resume")
    before = path.stat().st_mtime_ns if path.exists() else None

    def asked() -> bool:
        with contextlib.suppress(CheckpointError, FileNotFoundError):
            state, now = load_tensors(path), path.stat().st_mtime_ns
            return now != before and int(state["epoch"]) * an_epoch + int(state["step"]) >= steps
        return out.exists()

    return asked
