"""Does a figure stay the same from one process to the next? Runs a benchmark in several and reports the spread of medians.

All rounds of a process share its memory layout and the machine's load, which differ in the next process. So the rounds of one
process alone make a figure look more certain than it is. Figures without a spread are those of the first process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.harness import ABOUT, report, spread

Row = dict[str, Any]


def run(name: str, options: argparse.Namespace) -> list[Row]:
    """Return the rows of one process."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(["--quick"] if options.quick else [])]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in printed.splitlines()]
    return [{key: value for key, value in row.items() if key not in ABOUT} for row in rows]


def combined(runs: list[list[Row]]) -> list[Row]:
    """Return each row with the spread of the processes' medians in place of the spread of one's rounds.

    >>> one, two = ([{"ratio": "a / b", "value": spread([m - 1, m, m + 1])}] for m in (2.0, 4.0))
    >>> found = combined([one, two])[0]["value"]
    >>> found["median"], found["runs"], found["rounds"]
    (3.0, 2, 3)
    """
    return [
        {key: _combined([row[key] for row in same]) for key in same[0]} for same in zip(*runs, strict=True)
    ]


def _combined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict) and "median" in first:
        return {**spread([value["median"] for value in values]), "rounds": first["runs"]}
    return first


def main() -> None:
    """Run, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("name", help="a benchmark, such as views")
    parser.add_argument("--processes", type=int, default=9, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    parser.add_argument("--quick", action="store_true", help="figures mean nothing")
    parser.add_argument("--save", action="store_true", help="append the lines to benchmarks/results/")
    options = parser.parse_args()
    report(options.name, combined([run(options.name, options) for _ in range(options.processes)]), options)


if __name__ == "__main__":
    main()
