"""Runs commands as the ranks of one training, and watches their progress."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contracts.killing import Forker

from bancache.errors import CheckpointError
from bancache.models.checkpoint import load_tensors

Ends = list[tuple[int, str]]
# The host name may not resolve to an address.
NEAR = {"GLOO_SOCKET_IFNAME": "lo"}


def together(forker: Forker, *commands: list[str], signals: Sequence[Any] = (), **more: Any) -> Ends:
    """Run commands as the ranks of one training."""
    meet = {**NEAR, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    count = str(len(commands))
    environments = [{**meet, "RANK": str(rank), "WORLD_SIZE": count} for rank in range(len(commands))]
    return forker.run_together(list(commands), signals=signals, environments=environments, **more)


def free_port() -> int:
    """Return a free port below the range of ephemeral ports.

    A rank that connects early could get a port of that range as its own address, and so connect to itself.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as asked, contextlib.suppress(OSError):
            asked.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def reached(out: Path, steps: int, *, an_epoch: int = 6) -> Callable[[], bool]:
    """Return a check: has a state after ``steps`` steps been saved since this call, or is the training over?

    The process that saves a state is connected to all others.
    """
    path = out.with_name(f"{out.name}.resume")
    seen = path.stat().st_mtime_ns if path.exists() else None

    def asked() -> bool:
        nonlocal seen
        with contextlib.suppress(CheckpointError, FileNotFoundError):
            if (now := path.stat().st_mtime_ns) == seen:
                return out.exists()
            state, seen = load_tensors(path), now
            return int(state["epoch"]) * an_epoch + int(state["step"]) >= steps
        return out.exists()

    return asked
