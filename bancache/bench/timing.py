"""Timing: interleaved variants, cold CPU caches, medians, and ratios that are paired by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Seconds = dict[str, list[float]]

_MORE_THAN_CACHES = 1 << 27  # bytes, larger than the CPU's caches


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Seconds:
    """Return the seconds of each variant in each round; every round runs each variant once.

    So other load and changes of clock speed affect all variants alike. The first round warms up and does not count.
    Every other round runs in reverse order, because a machine becomes slower as it warms up. Before each run, other
    memory is written, so that the CPU caches are cold, as after a training step.
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
    """Return ``median``, the quartiles ``low`` and ``high``, the number of ``runs``, and the ``median_interval``."""
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


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return two of the sorted values between which the true median lies with a confidence of at least 95 %.

    It holds for every distribution: each value is below the true median with probability 1/2, so the number of these
    values is binomial (Conover, "Practical Nonparametric Statistics", 3.2). Fewer than six values cannot give 95 %;
    the interval is then the whole range.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), median_interval([float(i) for i in range(25)])
    ((1.0, 6.0), (7.0, 17.0))
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    first = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return ordered[first], ordered[-1 - first]


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the spread of ``one / other``, paired by round."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


def device_clock(kind: str) -> Callable[[], float]:
    """Return a clock in seconds: CPU time of all threads, or on CUDA the wall clock after all queued work is done."""
    if kind == "cpu":
        return time.process_time
    import torch

    def read() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return read
