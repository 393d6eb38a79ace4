"""What do the loops of benchmarks.rivals cost for a whole job? Its result lines, and the table that docs/comparison.md shows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from bancache.bench.timing import Seconds
from benchmarks.harness import RESULTS, compared, spread

COUNTS, EPOCHS = (1, 4), 30
MEMMAP, TORCHDISTILL, OURS = "float16 memmap", "torchdistill's cache, one output an image", "ours"
LOOPS = (
    "DataLoader, teacher online",
    "tensors, teacher online",
    MEMMAP,
    *([TORCHDISTILL] if find_spec("torchdistill") else []),
    OURS,
)
JOB = (
    "start of a dump + epochs * (dump of a view + times * (beginning + images // batch * step)); times: students in turn; "
    "one dump of a view where one output serves all views"
)
_JOBS = (("1", "1 student"), ("4", "4 in one loop"), ("4 in turn", "4 in turn"))


@dataclass(frozen=True)
class Measured:
    """CPU seconds in each round: of a step by loop and students; of an epoch's beginning, a view and a dump's start by loop."""

    step: Seconds
    begin: Seconds
    view: Seconds
    start: Seconds

    def jobs(self, steps: int) -> Seconds:
        """Return the seconds of whole jobs in each round: one student, four in one loop, four in turn; ``steps`` an epoch."""
        found = Seconds()
        for name in LOOPS:
            nothing = [0.0] * len(self.step[f"{name}, 1"])
            start, view = (part.get(name, nothing) for part in (self.start, self.view))
            dumps = 1 if name == TORCHDISTILL else EPOCHS
            for how, count, times in (("1", 1, 1), ("4", 4, 1), ("4 in turn", 1, 4)):
                found[f"{name}, {how}"] = [
                    started + dumps * dumped + EPOCHS * times * (begun + steps * step)
                    for started, dumped, begun, step in zip(
                        start, view, self.begin[name], self.step[f"{name}, {count}"], strict=True
                    )
                ]
        return found


def rows_of(measured: Measured, stores: dict[str, Any], steps: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each loop and number of students, then how each compares with ours."""
    job, view = measured.jobs(steps), measured.view
    for name, count in itertools.product(LOOPS, COUNTS):
        key = f"{name}, {count}"
        row: dict[str, Any] = {
            "what": name,
            "students": count,
            "step_milliseconds": _milliseconds(measured.step[key]),
            "beginning_milliseconds": _milliseconds(measured.begin[name]),
            "teacher": "once a stored view" if name in view else "at each step",
            **stores.get(name, {"bytes_a_pair": None, "kl_mean": 0.0}),
            "job_seconds": spread(job[key]),
            "job": JOB,
        }
        if count > 1:
            row["job_in_turn_seconds"] = spread(job[f"{key} in turn"])
        if name in view:
            row["dump_view_seconds"] = spread(view[name])
        if name in measured.start:
            row["dump_start_seconds"] = spread(measured.start[name])
        yield row
    yield compared(f"dump of a view, {MEMMAP} / {OURS}", view[MEMMAP], view[OURS], "none")
    for name, (what, seconds) in itertools.product(LOOPS[:-1], (("step", measured.step), ("job", job))):
        for own in (key for key in seconds if key.startswith(f"{OURS}, ")):
            how = own.removeprefix(f"{OURS}, ")
            title = f"{what}, {name} / {OURS}, students {how}"
            yield compared(title, seconds[f"{name}, {how}"], seconds[own], "none")


def _milliseconds(values: list[float]) -> dict[str, float]:
    return spread([1e3 * value for value in values])


def table() -> str:
    """Return the last saved run as a table."""
    lines = [json.loads(line) for line in (RESULTS / "rivals.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["time"] == lines[-1]["time"]]
    rows = {(line["what"], line["students"]): line for line in lines if "what" in line}
    ratios = {line["ratio"]: line["value"] for line in lines if "ratio" in line}
    heads = [
        "loop",
        "bytes a pair",
        "KL",
        "a step, ms",
        "job: " + _JOBS[0][1],
        *(title for _, title in _JOBS[1:]),
    ]
    cells = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for name in (name for name, students in rows if students == 1):
        row = rows[name, 1]
        costs = [ratios.get(f"job, {name} / {OURS}, students {how}") for how, _ in _JOBS]
        size = "none" if row["bytes_a_pair"] is None else f"{row['bytes_a_pair']:.0f}"
        lost = f"{row['kl_mean']:.1e}" if row["kl_mean"] else "0"
        cells.append([name, size, lost, _shown(row["step_milliseconds"]), *(_shown(cost) for cost in costs)])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _shown(value: dict[str, float] | None) -> str:
    return "1" if value is None else f"{value['median']:.3g} ({value['low']:.3g} to {value['high']:.3g})"
