"""What does a process save that keeps freed memory, as the commands do?

By processes of either kind in turn: CPU seconds of steps on one batch of random images (forward, loss, backward, SGD) and
of a dump of four views, on one thread, each timed after once without a clock; and what both kinds took at their peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from bancache.bench.work import Student, dump_once
from bancache.loader import Batch
from bancache.system.allocator import keep_freed_memory
from benchmarks.harness import arguments, compared, report, spread
from benchmarks.synthetic import CPU, image_set, net, settings, teacher_of

STEPS = {"resnet-8": 16, "wrn-16-4": 3}
CLASSES = 100


def work(*, quick: bool) -> dict[str, float]:
    """Return the CPU seconds of each piece of work in this process, and its peak in MB."""
    found, batch, samples = {}, 2 if quick else 128, 4 if quick else 500
    for name, usual in STEPS.items():
        count = 1 if quick else usual
        found[f"a step of {name}"] = _seconds(_steps(name, count, batch)) / count
    data, teacher = image_set(samples), teacher_of(net("resnet-8"), "resnet-8")
    found["a dump by resnet-8"] = _seconds(
        lambda: dump_once(teacher, data, settings(num_views=4), CPU, time.process_time)
    )
    return {**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def _steps(name: str, count: int, size: int) -> Callable[[], None]:
    student, none = Student(net(name)), np.empty(0, np.int64)
    images = torch.randn((size, 3, 32, 32)).contiguous(memory_format=torch.channels_last)
    labels, targets = torch.arange(size) % CLASSES, torch.full((size, CLASSES), 1 / CLASSES)
    batch = Batch(images, labels, targets, none, none)

    def steps() -> None:
        for _ in range(count):
            student.step(batch)

    return steps


def _seconds(piece: Callable[[], object]) -> float:
    piece()
    before = time.process_time()
    piece()
    return time.process_time() - before


def _child(kind: str, *, quick: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.allocator", "--child", kind, *(["--quick"] if quick else [])]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def main() -> None:
    """Measure and print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--child", choices=["kept", "default"], help="do the work, and print its figures")

    options = arguments("allocator", str(__doc__), more)
    if options.child:
        if options.child == "kept":
            keep_freed_memory()
        print(json.dumps(work(quick=options.quick)))
        return
    found: dict[str, list[dict[str, float]]] = {"kept": [], "default": []}
    for turn in range(1 if options.quick else 6):
        for kind in ["kept", "default"] if turn % 2 else ["default", "kept"]:
            found[kind].append(_child(kind, quick=options.quick))
    kept, default = ({what: [run[what] for run in runs] for what in runs[0]} for runs in found.values())
    rows = [
        compared(
            f"{what}, freed memory kept / by default",
            kept[what],
            default[what],
            "< 1",
            seconds=spread(kept[what]),
        )
        for what in kept
        if what != "peak"
    ]
    rows.append({"what": "peak in MB", "kept": spread(kept["peak"]), "default": spread(default["peak"])})
    report("allocator", rows, options)


if __name__ == "__main__":
    main()
