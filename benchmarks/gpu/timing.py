"""How GPU work is timed: variants take turns in one process, between events of the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bancache.system.capturing import capture

Call = Callable[[], Any]
Taken = dict[str, list[float]]


@dataclass
class Contest:
    """Variants that take turns.

    Attributes:
        variants: Each returns its milliseconds.
        summarize: Makes rows of the milliseconds of each variant in each turn.
        taken: These milliseconds.
        seconds: What the last turn took.
    """

    variants: dict[str, Callable[[], float]]
    summarize: Callable[[Taken], list[dict[str, Any]]]
    taken: Taken = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.taken = {name: [] for name in self.variants}

    @property
    def turns(self) -> int:
        """How many were taken."""
        return min((len(values) for values in self.taken.values()), default=0)

    def turn(self) -> bool:
        """Run each variant once, every other time in reverse order; one that fails has no part in later turns."""
        began = time.monotonic()
        names = list(self.variants)[:: -1 if self.turns % 2 else 1]
        found: dict[str, float] = {}
        for name in names:
            try:
                found[name] = self.variants[name]()
            except Exception as error:
                del self.variants[name], self.taken[name]
                raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
        for name, value in found.items():
            self.taken[name].append(value)
        self.seconds = time.monotonic() - began
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all turns so far."""
        return self.summarize(self.taken)


def recorded(body: Call, device: torch.device) -> Call:
    """Return what repeats ``body``: a graph of it on a GPU, itself in a rehearsal."""
    return capture(body, device) if device.type == "cuda" else body


def milliseconds(work: Call, device: torch.device) -> float:
    """Return how long queued work takes, idle gaps included."""
    if device.type != "cuda":
        before = time.perf_counter()
        work()
        return (time.perf_counter() - before) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end)


def wall(work: Call, device: torch.device) -> float:
    """Return milliseconds by the wall clock until all work on the device is done: what includes files and threads."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    before = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - before) * 1e3
