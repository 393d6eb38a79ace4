"""How everything here is measured: interleaved in one process, caches emptied, one thread, CPU time, medians with spread."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bancache.bench.timing import interleave, ratios, spread
from bancache.system.environment import environment

RESULTS = Path(__file__).parent / "results"

# What every line has beside its figures.
ABOUT = ("benchmark", "time", "command", "commit", "environment")

__all__ = ["ABOUT", "arguments", "commit", "compared", "interleave", "ratios", "report", "shown", "spread"]


def compared(ratio: str, one: list[float], other: list[float], target: str, **more: Any) -> dict[str, Any]:
    """Return a row for ``one / other`` with what is aimed at, such as ``">= 0.5"``."""
    return {"ratio": ratio, "value": ratios(one, other), "target": target, **more}


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    return options


def report(name: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the rows, and keep them where they were asked for, with everything needed to repeat them."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    program = f"benchmarks.{Path(sys.argv[0]).stem}"
    command = " ".join(["python", "-m", program, *sys.argv[1:]])
    about = dict(zip(ABOUT, (name, now, command, commit(), environment(torch.device("cpu"))), strict=True))
    lines = [json.dumps({**about, **row}) for row in rows]
    if options.save:
        with (RESULTS / f"{name}.jsonl").open("a") as stream:
            stream.writelines(line + "\n" for line in lines)
    if options.json:
        print("\n".join(lines))
        return
    for row in rows:
        print("  ".join(f"{key} {shown(value)}" for key, value in row.items()))


def shown(value: Any) -> str:
    """Return a figure or a spread as text."""
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.3g} ({value['low']:.3g} to {value['high']:.3g}, n={value['runs']})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def commit() -> str:
    """Return the commit; of an unpacked checkout what BANCACHE_COMMIT or the file COMMIT says."""
    told, file = os.environ.get("BANCACHE_COMMIT"), RESULTS.parent.parent / "COMMIT"
    if told or file.is_file():
        return told or file.read_text().strip()
    asked = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=RESULTS)
    except OSError:  # there is no git
        return "unknown"
    return done.stdout.strip() or "unknown"
