"""Does each sample show its views in a uniformly random order, and how many Feistel rounds does that take?

For lattices of several sizes and numbers of rounds: chi-squared divided by its degrees of freedom, for the
view in one view index and for the pairs of views in two views, over many samples. 1 is uniform; the deviation
that chance alone gives is beside it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.views import ViewSpace, shuffle
from benchmarks.harness import arguments, report


def statistic(counts: NDArray[np.float64]) -> float:
    """Return chi-squared over degrees of freedom of counts that should be equal."""
    expected = counts.mean()
    return float(((counts - expected) ** 2 / expected).sum() / (counts.size - 1))


def measure(name: str, rounds: int, samples: int) -> dict[str, Any]:
    """Return the statistics of one lattice at one number of rounds."""
    usual, shuffle.ROUNDS = shuffle.ROUNDS, rounds
    try:
        views = ViewSpace.parse(name, seed=7)
        who = np.arange(samples)
        before = time.process_time()
        shown = [views.view_ids(who, view_index) for view_index in (0, 1, views.size - 1)]
        seconds = (time.process_time() - before) / (3 * samples)
    finally:
        shuffle.ROUNDS = usual
    pairs = []
    for first, second in ((0, 1), (1, 2), (0, 2)):
        table = np.zeros((views.size, views.size))
        np.add.at(table, (shown[first], shown[second]), 1)
        pairs.append(statistic(table[~np.eye(views.size, dtype=bool)]))
    return {
        "views": name,
        "lattice": views.size,
        "rounds": rounds,
        "used": rounds == usual,
        "samples": samples,
        "one_slot": statistic(np.bincount(shown[0], minlength=views.size).astype(float)),
        "one_slot_deviation": (2 / (views.size - 1)) ** 0.5,
        "two_slots": [round(p, 4) for p in pairs],
        "two_slots_deviation": (2 / (views.size * (views.size - 1) - 1)) ** 0.5,
        "microseconds_a_view": seconds * 1e6,
    }


def main() -> None:
    """Measure and print."""
    options = arguments("view_order", str(__doc__))
    samples = 2_000 if options.quick else 200_000
    names = ("crop1", "crop1-flip", "crop2", "crop4-flip")
    rows = [measure(name, rounds, samples) for name in names for rounds in (4, 8, 12)]
    report("view_order", rows, options)


if __name__ == "__main__":
    main()
