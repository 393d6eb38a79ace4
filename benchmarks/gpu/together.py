"""What do students cost that train side by side in one process, beside as many times one alone?

A round is an epoch of each, with its beginning. Aim: four WRN-28-2 at batch 128 take at most half of four times one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bancache.loader.placement import Placement
from bancache.training.cuda_graph import Eager, Stepper, captured
from benchmarks.gpu import setting
from benchmarks.gpu.session import Row, Session, Task
from benchmarks.gpu.steps import prepared
from benchmarks.gpu.timing import Contest, Taken, milliseconds
from benchmarks.harness import ratios, spread

CASES = (("wrn-28-2", 128, 25_600), ("wrn-16-4", 512, 50_000))
SMALL = (("convnet-16", 16, 48),)
COUNTS = (1, 2, 4)


def tasks(session: Session) -> list[Task]:
    """Compare one, two and four students of two nets."""
    small = session.quick or not session.cuda
    return [
        Task(
            {"part": "side by side", "net": name, "batch": batch},
            15,
            partial(_contest, session, name, batch, count),
        )
        for name, batch, count in (SMALL if small else CASES)
    ]


def _contest(session: Session, name: str, batch: int, count: int) -> Contest:
    cache, data, _ = prepared(count, session.device)
    steps = count // batch
    place: Placement = "device" if session.cuda else "cpu"
    variants: dict[str, Callable[[], float]] = {}
    for number in COUNTS:

        def make(number: int = number) -> Callable[[], float]:
            some = [
                setting.loader_and_step(name, batch, cache, data, place, session.device, seed=seed)
                for seed in range(number)
            ]
            steppers = captured(some) if session.cuda else [Eager(*one) for one in some]
            return _timed(session, steppers, steps)

        if (timed := session.attempt({"students": str(number)}, make)) is not None:
            variants[str(number)] = timed
    return Contest(variants, _rows)


def _timed(session: Session, steppers: Sequence[Stepper], steps: int) -> Callable[[], float]:
    """Return what times an epoch's mean step of all students of a graph."""
    begun, rates = [0], [1e-4] * steps  # so small that noise does not carry the weights away
    takes = steppers[:1] if session.cuda else steppers  # one replay is a step of each

    def epoch() -> None:
        for stepper in steppers:
            stepper.begin(begun[0], rates, 0)
        begun[0] += 1
        for _ in range(steps):
            for stepper in takes:
                stepper.take()

    epoch()  # the first epoch reads a view that nothing has fetched ahead
    return lambda: milliseconds(epoch, session.device) / steps


def _rows(taken: Taken) -> list[Row]:
    """Return a row for each number of students: milliseconds in which each takes a step, and the gain over one after another."""
    rows: list[Row] = []
    for name, values in taken.items():
        alone = [int(name) * ms for ms in taken["1"]]
        rows.append({"students": name, "ms": spread(values), "gain": ratios(alone, values)})
        if int(name) == max(COUNTS):
            rows[-1]["aim"] = "gain >= 2"
    return rows
