"""How everything is timed: variants interleaved, caches emptied before each, medians, ratios paired by round."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Seconds = dict[str, list[float]]

_MORE_THAN_CACHES = 1 << 27  # bytes


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Seconds:
    """Return the seconds of each variant in each round, every round running all of them once.

    Neighbours and clock changes then hit all variants alike; the first round warms up and does not count. Every other
    round goes backwards, so that nobody is always later on a machine that becomes warm. Before each, other memory goes
    through the caches: nobody finds there what it or its neighbor left, as after a training step.
    """
    seconds: Seconds = {name: [] for name in variants}
    forwards, other = list(variants), np.zeros(_MORE_THAN_CACHES, np.uint8)
    for turn in range(rounds + 1):
        for name in forwards[:: -1 if turn % 2 else 1]:
            other += 1
            before = clock()
            variants[name]()
            if turn:
                seconds[name].append(clock() - before)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles, the number of values, and between what the median of endlessly many would lie.

    The quartiles say how much single values differ, and stay where they are however many there are. The interval of the
    median, between ``median_low`` and ``median_high``, becomes narrower: see ``median_interval``.
    """
    ordered = sorted(values)
    low, middle, high = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else ordered * 3
    surely_low, surely_high = median_interval(ordered)
    return {
        "median": middle,
        "low": low,
        "high": high,
        "runs": len(ordered),
        "median_low": surely_low,
        "median_high": surely_high,
    }


def median_interval(ordered: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return two of the values, in order, between which the true median lies with at least that confidence.

    Whatever the distribution: each value is below the true median with probability 1/2, so how many are is binomial
    (Conover, "Practical Nonparametric Statistics", 3.2). Fewer than six values cannot give 95 %: then it is all of them.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), median_interval([float(i) for i in range(25)])
    ((1.0, 6.0), (7.0, 17.0))
    """
    count = len(ordered)
    outside, left_out = 0.0, 0
    while left_out < (count - 1) // 2:
        outside += 2 * math.comb(count, left_out) / 2**count
        if outside > 1 - confidence:
            break
        left_out += 1
    first = max(0, left_out - 1)
    return ordered[first], ordered[count - 1 - first]


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
