"""How everything is timed: variants interleaved in one process, medians with quartiles, ratios paired by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Seconds = dict[str, list[float]]


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Seconds:
    """Return the seconds of each variant in each round, every round running all of them once.

    Neighbours and clock changes then hit all variants alike; the first round warms up and does not count.
    """
    seconds: Seconds = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            before = clock()
            run()
            if turn:
                seconds[name].append(clock() - before)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the number of values."""
    ordered = sorted(values)
    low, middle, high = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else ordered * 3
    return {"median": middle, "low": low, "high": high, "runs": len(ordered)}


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the spread of ``one / other``, paired by round."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


def device_clock(kind: str) -> Callable[[], float]:
    """Return what is read before and after: CPU time of all threads, or on CUDA the clock once all work is done."""
    if kind == "cpu":
        return time.process_time
    import torch

    def read() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return read
