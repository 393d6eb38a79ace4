"""Seeds as tasks: each is a chain of trainings and dumps of its own, and goes on from its files wherever it runs next."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bancache.cluster.engine import Engine
from bancache.cluster.fill import outcome_of
from bancache.cluster.tasks import Outcome, alone, attempt, own_versions
from bancache.study.arms_file import StudyFile
from bancache.study.experiment import Experiment
from bancache.system.progress import Progress
from bancache.system.signals import Interrupt

if TYPE_CHECKING:
    import torch

_LOOK_EVERY_SECONDS = 0.5

SeedTask = Callable[[int, Interrupt], object]


def run_seeds(
    engine: Engine, seeds: Sequence[int], task: SeedTask, *, progress: Progress, interrupt: Interrupt
) -> None:
    """Run ``task(seed, interrupt)`` for each seed, one at a time in each worker process.

    Raises:
        ClusterError: Workers or their scheduler fail.
        StoppedError: ``interrupt`` was set; the workers stop after the step that is under way.
    """
    versions = own_versions()
    pending: dict[Future[Outcome], int] = {
        engine.executor.submit(attempt, versions, run_seed, task, seed): seed for seed in seeds
    }
    try:
        while pending:
            interrupt.check(f"{len(seeds) - len(pending)} of {len(seeds)} seeds are done")
            engine.slots()  # says which workers are gone
            for future in wait(pending, _LOOK_EVERY_SECONDS, FIRST_COMPLETED).done:
                seed = pending.pop(future)
                progress.log(f"seed {seed} is done, on {outcome_of(engine, future, f'seed {seed}').host}")
    finally:
        for future in pending:
            future.cancel()


def run_seed(task: SeedTask, seed: int) -> None:
    """Run a seed's task on a worker, until nobody wants it any more."""
    with _wanted() as interrupt:
        alone(task, seed, interrupt)


def generations_of_seed(
    seed: int,
    interrupt: Interrupt,
    *,
    experiment: Experiment,
    out: str,
    cwd: str,
    device: str,
    deterministic: bool = False,
    **more: Any,
) -> None:
    """Carry out what an experiment leaves to do for one seed; ``out`` is relative to ``cwd``, options as of ``run_generations``."""
    from dataclasses import replace

    from bancache.study.generations import run_generations

    own, folder = replace(experiment, seeds=(seed,)), _folder(out, cwd)
    run_generations(own, folder, device=_device(device, deterministic), interrupt=interrupt, **more)


def study_of_seed(
    seed: int,
    interrupt: Interrupt,
    *,
    file: StudyFile,
    out: str,
    cwd: str,
    device: str,
    deterministic: bool = False,
    **more: Any,
) -> None:
    """Carry out what a study from a file leaves to do for one seed; ``more`` are attributes of its ``Place``."""
    from bancache.study.from_file import run_study
    from bancache.study.running import Place

    place = Place(device=_device(device, deterministic), interrupt=interrupt, **more)
    run_study(file, _folder(out, cwd), place, (seed,))


def _device(name: str, deterministic: bool) -> torch.device:
    """Return a worker's device, and let torch repeat its bits there from now on if it is asked to."""
    from bancache.system.device import choose_device, make_deterministic

    if deterministic:
        make_deterministic()
    return choose_device(name)


def _folder(out: str, cwd: str) -> Path:
    """Return the folder ``out`` of a command that runs in ``cwd``: as typed if this process runs there, too, else absolute.

    A cache records the path of its teacher's file, and that should be the one that a single process records.
    """
    return Path(out) if str(Path.cwd()) == cwd else Path(cwd, out)


@contextlib.contextmanager
def _wanted() -> Iterator[Interrupt]:
    """Yield an interrupt that is set when Dask has no use for this task any more: its command was stopped or died."""
    interrupt, over = Interrupt(), threading.Event()
    watch = threading.Thread(target=_watch, args=(_is_wanted(), interrupt, over), daemon=True)
    watch.start()
    try:
        yield interrupt
    finally:
        over.set()
        watch.join()


def _watch(is_wanted: Callable[[], bool], interrupt: Interrupt, over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_SECONDS):
        if not is_wanted():
            interrupt.signal_number = signal.SIGTERM
            return


def _is_wanted() -> Callable[[], bool]:
    """Return what says whether the task of this thread is wanted; outside of Dask it always is."""
    if "distributed" not in sys.modules:
        return lambda: True
    from distributed import get_worker
    from distributed.worker import thread_state

    try:
        worker, key = get_worker(), thread_state.key
    except (AttributeError, ValueError):
        return lambda: True

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return is_wanted
