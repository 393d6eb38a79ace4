"""What does the loss cost, forward and backward, against torch's kl_div + cross_entropy with autograd?

512 rows of 100 and of 1,000 classes in float32 on a CPU; teacher's probabilities and labels, weights 1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bancache.bench.work import loss_against_eager
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import CPU

BATCH = 512


def repeated(run: Callable[[], None], times: int) -> Callable[[], None]:
    """Return many calls as one: a single one is too short for the clock."""
    return lambda: [run() for _ in range(times)] and None


def main() -> None:
    """Measure and print."""
    options = arguments("loss", str(__doc__))
    rounds = 2 if options.quick else 25
    rows: list[dict[str, Any]] = []
    for classes, times in ((100, 50), (1000, 10)):
        times = 2 if options.quick else times
        variants = loss_against_eager(BATCH, classes, CPU)
        seconds = interleave({name: repeated(run, times) for name, run in variants.items()}, rounds=rounds)
        rows += [
            {"what": name, "classes": classes, "microseconds": spread([v / times * 1e6 for v in values])}
            for name, values in seconds.items()
        ]
        title = f"loss / eager kl_div + cross_entropy, {classes} classes"
        rows.append(compared(title, seconds["loss"], seconds["eager loss"], "<= 0.65"))
    report("loss", rows, options)


if __name__ == "__main__":
    main()
