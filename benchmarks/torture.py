"""Does anything get lost? Faults of every kind, injected until the time is over, and how often that went wrong.

A trial fails if the exit code, the message or a single byte of the result differs from docs/reliability.md. This does not
measure speed. Small files are in memory, so most of the time goes to faults.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contracts.killing import Forker
from contracts.memory import folder_in_memory
from contracts.tiny import RECIPE, architecture, images
from torture import clusters, content, copies, kills, mutating, storage, together
from torture.rows import Ground, NotHere

from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_labels, train
from benchmarks.harness import arguments, report

ROWS = (
    *kills.ROWS,
    *storage.ROWS,
    *content.ROWS,
    *copies.ROWS,
    *together.ROWS,
    *clusters.ROWS,
    *mutating.ROWS,
)
_SECONDS = 30.0


def prepare(folder: Path, forker: Forker, *, quick: bool, seconds: float) -> Ground:
    """Train a teacher, dump it, train a student, all undisturbed."""
    first, second = images(seed=0, count=96), images(seed=1, count=40)
    np.savez(
        folder / "tiny.npz",
        train_images=first.images,
        train_labels=first.labels,
        test_images=second.images,
        test_labels=second.labels,
        classes=np.array(first.classes),
    )
    spec = DataSpec(f"npz:{folder / 'tiny.npz'}")
    data = spec.open("train")
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")
    train(run, data, spec.open("test"), TrainerOptions(folder / "gen0.pt", torch.device("cpu")))
    names = (folder / name for name in ("gen0.pt", "gen0.zarr", "gen1.pt"))
    ground = Ground(folder, forker, *names, quick=quick, seconds=seconds)
    for argv in (ground.dump_args(ground.cache), ground.train_args(ground.student)):
        code, said = forker.run(argv)
        if code:
            raise SystemExit(said)
    return ground


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", type=_numbers, default=set(), help="these faults, such as 8,10")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="time limit of a row")


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def main() -> None:
    """Run every row and print how often it failed."""
    options = arguments("torture", str(__doc__), _more)
    torch.set_num_threads(1)
    forker = Forker()
    try:
        with folder_in_memory() as folder:
            ground = prepare(folder, forker, quick=options.quick, seconds=options.seconds)
            for row in (row for row in ROWS if not options.only or row.fault in options.only):
                started = time.monotonic()
                about: dict[str, Any] = {"fault": row.fault, "what": row.what}
                try:
                    outcomes = list(row.run(ground))
                    about |= {"trials": len(outcomes), "failures": outcomes.count(False)}
                except NotHere as missing:
                    about |= {"trials": 0, "failures": 0, "skipped": str(missing)}
                # Row by row: a stopped campaign keeps its finished rows.
                report("torture", [{**about, "seconds": round(time.monotonic() - started, 1)}], options)
    finally:
        forker.close()


if __name__ == "__main__":
    main()
