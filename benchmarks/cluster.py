"""What do workers of Dask add to a dump, and how many shards a second can one command give away?

Added: a dump of a ResNet-8 on a CPU by one worker of Dask against a plain one, CPU time of everything in one process:
scheduler, worker and command are threads of it. The shards hold 5,000 images, those of CIFAR-100 about 17,000; and, to
show what a shard costs by itself, 500.
Given away: a teacher that costs almost nothing, whose small shards are done by worker processes; seconds by the clock
from the first shard to the last, so other work on the machine counts. What comes once is apart: workers that start, and
that open the teacher. On paper: what a shard asks of the file system and of the scheduler, and what 200,000 shards and
1,000 workers do.
"""

from __future__ import annotations

import argparse
import collections
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bancache.bench.work import ShardTimer, dump_once
from bancache.cluster.engine import LOCAL_CONFIG, Engine, local_engine, remote_engine
from bancache.cluster.fill import Planned, dump_by
from bancache.cluster.tasks import Origin, alone, attempt, keep_open, own_versions, write_shard
from bancache.dumping import DumpSettings
from bancache.dumping.prepare import prepare
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.allocator import keep_freed_memory
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt
from benchmarks.harness import arguments, compared, report, spread
from benchmarks.synthetic import CPU, Table, image_set, net, noise_file, settings, teacher_of


def idle() -> nn.Module:
    """Return a teacher that costs almost nothing; workers find it as ``benchmarks.cluster:idle``."""
    return Table(100)


@contextmanager
def in_this_process() -> Iterator[Engine]:
    """Run a scheduler and one worker of two threads in this process, set up as those of ``--workers``."""
    import dask
    from distributed import LocalCluster

    here = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set(LOCAL_CONFIG),
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **here) as cluster,
        remote_engine(cluster.scheduler_address, Silent()) as engine,
    ):
        yield engine


def by_workers(
    engine: Engine,
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    asked: DumpSettings,
    origin: Origin,
    clock: Any,
    *,
    here: bool,
) -> float:
    """Dump to a temporary folder; return the seconds of its shards. ``here``: the workers are in this process."""
    shards = ShardTimer(clock)
    prepared = prepare(teacher, data, spec, asked, device=CPU, progress=Silent())
    if here:
        alone(keep_open, origin, prepared.binding.manifest, prepared.forward)
    planned = Planned(prepared.binding, origin, {}, {}, (), ())
    with tempfile.TemporaryDirectory() as folder:
        dump_by(
            engine,
            planned,
            Path(folder) / "bench.zarr",
            progress=shards,
            interrupt=Interrupt(),
            started=time.monotonic(),
        )
    return shards.seconds


def added(options: argparse.Namespace, count: int, rounds: int, target: str) -> dict[str, Any]:
    """Return the ratio of a dump by one worker to a plain one, and the milliseconds that a shard takes longer."""
    count, views, rounds = (256, 2, 1) if options.quick else (count, 4, rounds)
    data, asked = image_set(count), settings(num_views=views)
    data.fingerprint  # noqa: B018 (known before anything is timed)
    teacher, clock = teacher_of(net("resnet-8"), "net"), time.process_time
    plain, worker = [], []
    # Both in a thread, where glibc keeps a heap of its own, and both with the memory that commands and workers keep.
    keep_freed_memory()
    with in_this_process() as engine, ThreadPoolExecutor(1) as thread:
        for _ in range(rounds + 1):
            plain.append(thread.submit(dump_once, teacher, data, asked, CPU, clock).result()[1])
            spec = DataSpec("digits")
            worker.append(by_workers(engine, teacher, data, spec, asked, Origin(), clock, here=True))
    del plain[0], worker[0]  # the first warms up
    longer = [1e3 * (one - other) / views for one, other in zip(worker, plain, strict=True)]
    what = f"a dump by one worker / without, shards of {count:,} images"
    row = compared(what, worker, plain, target, images=count, shards=views)
    return {
        **row,
        "ms a shard without": 1e3 * float(np.median(plain)) / views,
        "ms added a shard": spread(longer),
    }


def given_away(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield how many shards a second worker processes do with a teacher that costs almost nothing, and how they start."""
    count, views, rounds = (100, 4, 1) if options.quick else (500, 32, 5)
    asked, name = settings(num_views=views), "benchmarks.cluster:idle"
    with tempfile.TemporaryDirectory() as folder:
        spec = noise_file(Path(folder), count)
        data = spec.open("train")
        teacher = load_teacher(name, device=CPU, shape=(100, 3, 32, 32), outputs="logits")
        origin = Origin(((name, None),), spec.source, "cpu")
        for workers in (1,) if options.quick else (1, 2, 4):
            began = time.monotonic()
            with local_engine(workers, gpus=False, progress=Silent()) as engine:
                started = time.monotonic()
                run = partial(
                    by_workers, engine, teacher, data, spec, asked, origin, time.monotonic, here=False
                )
                run()  # opens the teacher in each process
                opened = time.monotonic()
                rates = [views / run() for _ in range(rounds)]
            yield {
                "workers": workers,
                "shards": views,
                "shards a second": spread(rates),
                "seconds until they run": started - began,
                "seconds of a first dump": opened - started,
            }


_ASKED = {"open": "opens", "os.listdir": "listings", "os.scandir": "listings", "os.rename": "renames"}


class Counter:
    """Counts what this process asks of the file system, by thread: the command's is the main one."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event in _ASKED and ".zarr" in str(given[0]):
            who = "command" if threading.current_thread() is threading.main_thread() else "workers"
            self.counts[f"{_ASKED[event]} of {who}"] += 1


def on_paper() -> dict[str, Any]:
    """Return what a shard asks of scheduler and store, from caches of 8 and 16 shards, and of 200,000 shards."""
    teacher, data, counter = teacher_of(idle(), "idle"), image_set(100), Counter()
    counts = []
    for views in (8, 8, 16):
        counter.counts.clear()
        engine = Engine(ThreadPoolExecutor(2), lambda: 2)
        by_workers(
            engine,
            teacher,
            data,
            DataSpec("digits"),
            settings(num_views=views),
            Origin(),
            time.monotonic,
            here=True,
        )
        counts.append(dict(counter.counts))
    names = sorted(set(counts[1]) | set(counts[2]))
    a_shard = {name: (counts[2].get(name, 0) - counts[1].get(name, 0)) / 8 for name in names}
    task = (
        attempt,
        own_versions(),
        write_shard,
        "/data/runs/gen0.zarr",
        "0" * 64,
        199_999,
        Origin((("/data/gen0.pt", None),)),
    )
    window = 1_000 * 2 * 5 // 4
    return {
        "per shard": {**a_shard, "bytes of the task": len(pickle.dumps(task))},
        "shards": 200_000,
        "opens of the command": 200_000 * a_shard.get("opens of command", 0),
        "opens of a worker of 1,000": 200 * a_shard.get("opens of workers", 0),
        "listings per shard": sum(a_shard.get(f"listings of {who}", 0) for who in ("command", "workers")),
        "tasks that the scheduler knows of 1,000 workers with two threads": window,
    }


def _only_on_paper(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--paper", action="store_true", help="only count, in seconds: nothing is timed")


def main() -> None:
    """Measure and print."""
    options = arguments("cluster", str(__doc__), _only_on_paper)
    aims = ((5_000, 9, "<= 1.05"), (500, 25, "none"))[: 1 if options.quick else 2]
    timed = [] if options.paper else [*(added(options, *aim) for aim in aims), *given_away(options)]
    report("cluster", [on_paper(), *timed], options)


if __name__ == "__main__":
    main()
