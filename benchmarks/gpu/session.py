"""One run of all GPU benchmarks: its budget of time, and its lines, each printed and kept as soon as it is known."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bancache.system.environment import environment
from benchmarks.gpu.timing import Contest
from benchmarks.harness import commit, shown

Row = dict[str, Any]
FILE = "gpu.jsonl"
# Rounds before anything else is measured; time that is left goes into more.
ROUNDS, MOST_ROUNDS = 3, 25
# What a round may take longer than the one before it.
_MARGIN = 1.2


class OutOfTime(BaseException):
    """The budget is used up. No ``Exception``: nothing that catches those may go on."""


@dataclass(frozen=True)
class Task:
    """Something to measure.

    Attributes:
        about: What every row of it says: its part, its net and the like.
        seconds: What preparing it and its first rounds take on an H200, about.
        prepare: Returns what takes turns, or rows that are final.
    """

    about: Row
    seconds: float
    prepare: Callable[[], Contest | list[Row]]


@dataclass
class Session:
    """A device, a budget and a file.

    Attributes:
        device: Where to measure.
        quick: Little work; figures mean nothing.
        out: A folder that gets ``gpu.jsonl``; None prints alone.
        end: When it has to be over, in seconds of ``time.monotonic``.
    """

    device: torch.device
    quick: bool
    out: Path | None
    end: float
    _held: list[tuple[Row, Contest]] = field(default_factory=list)
    _task: Row = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._about = {
            "command": " ".join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
            "commit": commit(),
            "environment": environment(self.device) | _gpu(self.device),
            "rehearsal": self.quick or not self.cuda,
        }
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)

    @property
    def cuda(self) -> bool:
        """Whether there is anything to measure."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    @contextmanager
    def ends_in_time(self) -> Iterator[None]:
        """Raise OutOfTime in the main thread when the budget is used up, whatever runs then."""

        def stop(number: int, frame: FrameType | None) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.left))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def add(self, row: Row) -> None:
        """Print a row, and append it with everything needed to repeat it."""
        print("  ".join(f"{key} {shown(value)}" for key, value in row.items()), flush=True)
        if self.out is not None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            with (self.out / FILE).open("a") as stream:
                stream.write(json.dumps({"time": now, **row, **self._about}) + "\n")

    def say(self, row: Row) -> None:
        """Add a row of the task under way."""
        self.add({**self._task, **row})

    def allows(self, seconds: float, about: Row) -> bool:
        """Whether there is time for something; if not, a row says what is left out."""
        if self.quick or seconds <= self.left:
            return True
        self.say({**about, "skipped": f"takes about {seconds:.0f} s, and {max(0, self.left):.0f} are left"})
        return False

    def attempt(self, about: Row, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns; None if it fails, which a row says: one fault may not lose what comes after."""
        began = time.monotonic()
        try:
            return work()
        except Exception as error:  # noqa: BLE001 (time on a GPU is short, and the next benchmark does not need this one)
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            self.say({**about, "failed": said, "seconds": time.monotonic() - began})
            return None

    def measure(self, task: Task) -> None:
        """Prepare a task and take its first rounds, as far as time allows, and keep it for more."""
        self._task = task.about
        if not self.allows(task.seconds, {}):
            return
        began = time.monotonic()
        found = self.attempt({}, task.prepare)
        if isinstance(found, list):
            for row in found:
                self.say(row)
        elif found is not None and found.variants:
            # A task that takes longer than it should leaves its other rounds for later.
            worked = self._turns(found, 1 if self.quick else ROUNDS, until=began + task.seconds)
            self._held += [(task.about, found)] if worked else []
        if not self.quick:
            print(f"({time.monotonic() - began:.1f} s, {self.left:.0f} s are left)", flush=True)

    def use_what_is_left(self) -> None:
        """Take more rounds of everything, in the same order, for as long as there is time."""
        more = not self.quick
        while more:
            more = False
            for about, contest in self._held:
                self._task = about
                more |= self._turns(contest, 1)

    def _turns(self, contest: Contest, count: int, until: float = math.inf) -> bool:
        """Take turns and write what is known then; return whether there was time and need for one."""
        taken = 0
        for _ in range(count):
            end = min(until if taken else math.inf, self.end)
            late = contest.turns and time.monotonic() + _MARGIN * contest.seconds > end
            if late or contest.turns >= MOST_ROUNDS:
                break
            taken += self.attempt({}, contest.turn) is not None
        rows = self.attempt({}, contest.rows) if taken else []
        for row in rows or []:
            self.say(row)
        return bool(rows)


def _gpu(device: torch.device) -> Row:
    """Return what a GPU's figures depend on beyond its name."""
    found: Row = {"inductor_cache": "TORCHINDUCTOR_CACHE_DIR" in os.environ}
    try:
        found["triton"] = metadata.version("triton")
    except metadata.PackageNotFoundError:
        found["triton"] = None
    if device.type != "cuda":
        return found
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    asked = "power.limit,clocks.max.sm,clocks.max.mem,driver_version"
    query = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return found
    values = (part.strip() for part in done.stdout.split(","))
    return found | dict(zip(asked.split(","), values, strict=False))
