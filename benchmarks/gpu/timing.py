"""How GPU work is timed: interleaved in one process, between events of the device, medians with quartiles."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bancache.system.device import choose_device, environment
from bancache.training.cuda_graph import capture
from benchmarks import harness

Call = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What every benchmark here is asked.

    Attributes:
        device: Where to measure.
        quick: Little work; figures mean nothing.
        out: A folder that gets one JSONL file for each benchmark; None prints alone.
    """

    device: torch.device
    quick: bool
    out: Path | None

    @property
    def cuda(self) -> bool:
        """Whether there is anything to measure."""
        return self.device.type == "cuda"


def options(name: str, question: str) -> Options:
    """Parse them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.gpu{name and '.' + name}", description=question
    )
    parser.add_argument("--device", default="auto", help="auto, cpu (a rehearsal), cuda or cuda:1")
    parser.add_argument("--quick", action="store_true", help="seconds; figures mean nothing")
    parser.add_argument("--out", type=Path, help="append JSON lines to files in this folder")
    found = parser.parse_args()
    return Options(choose_device(found.device), found.quick, found.out)


def recorded(body: Call, given: Options) -> Call:
    """Return what repeats ``body``: a graph of it on a GPU, itself in a rehearsal."""
    return capture(body, given.device) if given.cuda else body


def milliseconds(work: Call, given: Options) -> float:
    """Return how long queued work takes, idle gaps included."""
    if not given.cuda:
        before = time.perf_counter()
        work()
        return (time.perf_counter() - before) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(given.device)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(given.device)
    return start.elapsed_time(end)


def interleave(variants: dict[str, Call], given: Options, *, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of each variant in each round, in turns; the first round warms up and does not count."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            taken = milliseconds(work, given)
            if turn:
                found[name].append(taken)
    return found


def report(name: str, rows: list[dict[str, Any]], given: Options) -> None:
    """Print the rows, and append them to a file with everything needed to repeat them."""
    about = {
        "benchmark": f"gpu.{name}",
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"benchmarks.gpu.{name}", *sys.argv[1:]]),
        "commit": harness._commit(),
        "environment": environment(given.device) | _gpu(given),
        "rehearsal": given.quick or not given.cuda,
    }
    for row in rows:
        print("  ".join(f"{key} {harness._shown(value)}" for key, value in row.items()), flush=True)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        with (given.out / f"{name}.jsonl").open("a") as stream:
            stream.writelines(json.dumps({**about, **row}) + "\n" for row in rows)


def _gpu(given: Options) -> dict[str, Any]:
    """Return what a GPU's figures depend on beyond its name."""
    found: dict[str, Any] = {}
    try:
        found["triton"] = metadata.version("triton")
    except metadata.PackageNotFoundError:
        found["triton"] = None
    if not given.cuda:
        return found
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    asked = "power.limit,clocks.max.sm,clocks.max.mem,driver_version"
    try:
        done = subprocess.run(
            [
                "nvidia-smi",
                f"--query-gpu={asked}",
                "--format=csv,noheader",
                f"--id={given.device.index or 0}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return found
    return found | dict(
        zip(asked.split(","), (part.strip() for part in done.stdout.split(",")), strict=False)
    )
