"""How everything here is measured: interleaved in one process, one thread, CPU time, medians with their spread."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bancache.runtime import environment

RESULTS = Path(__file__).parent / "results"


def arguments(
    name: str, question: str, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse the options that every benchmark has, and those that ``more`` adds."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=question)
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes; figures mean nothing"
    )
    parser.add_argument("--save", action="store_true", help="append the lines to benchmarks/results/")
    if more:
        more(parser)
    return parser.parse_args()


def interleave(variants: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds of each variant in each round, every round running all of them once.

    Neighbours and clock changes then hit all variants alike; the first round warms up and does not count.
    """
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            before = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - before)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the number of values."""
    ordered = sorted(values)
    low, middle, high = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else ordered * 3
    return {"median": middle, "low": low, "high": high, "runs": len(ordered)}


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the spread of ``one / other``, paired by round."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


def report(name: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the rows, and keep them where they were asked for, with everything needed to repeat them."""
    about = {
        "benchmark": name,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": _commit(),
        "environment": environment(torch.device("cpu")),
    }
    lines = [json.dumps({**about, **row}) for row in rows]
    if options.save:
        with (RESULTS / f"{name}.jsonl").open("a") as stream:
            stream.writelines(line + "\n" for line in lines)
    if options.json:
        print("\n".join(lines))
        return
    for row in rows:
        print("  ".join(f"{key} {_shown(value)}" for key, value in row.items()))


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.3g} ({value['low']:.3g} to {value['high']:.3g}, n={value['runs']})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
