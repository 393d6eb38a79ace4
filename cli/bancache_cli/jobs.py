"""Several seeds of a study at a time, each in a process of its own; files are all that they share."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bancache.errors import BancacheError
from bancache.system.progress import Silent
from bancache_cli import console

if TYPE_CHECKING:
    from bancache.study.generations import Experiment

_Failure = tuple[str, str, int]


def run_jobs(study: Experiment, out: Path, jobs: int, *, quiet: bool, **settings: Any) -> None:
    """Carry a study out in up to ``jobs`` processes that take its seeds in turn; each leaves what it would alone.

    Raises:
        StoppedError: A stop was asked for; every process has kept what it did.
        BancacheError: A process failed, with its message and exit code; the others have gone on to their end.
    """
    from bancache.study.experiment import claim
    from bancache.system.device import interruptible
    from bancache.system.files import make_directory

    make_directory(out)
    claim(study, out)  # before any of them, so that none overwrites what another asks for
    spawn = multiprocessing.get_context("spawn")  # a process that has used torch must not be forked
    working = []
    with interruptible() as interrupt:
        for turn in range(min(jobs, len(study.seeds))):
            receiver, sender = spawn.Pipe(duplex=False)
            told = (sender, study, study.seeds[turn::jobs], out, jobs, quiet, settings)
            process = spawn.Process(target=_work, args=told)
            process.start()
            sender.close()
            working.append((process, receiver))
        asked = False
        while any(process.is_alive() for process, _ in working):
            for process, _ in working:
                process.join(0.1)
            if interrupt.requested and not asked:
                asked = True
                for process, _ in working:
                    process.terminate()
    failures = [failure for process, receiver in working if (failure := _outcome(process.exitcode, receiver))]
    interrupt.check("every process has kept what it did")
    if failures:
        what, hint, exit_code = failures[0]
        error = BancacheError(what, hint=hint)
        error.exit_code = exit_code
        raise error


def _work(
    sender: Connection,
    study: Experiment,
    seeds: tuple[int, ...],
    out: Path,
    jobs: int,
    quiet: bool,
    settings: dict[str, Any],
) -> None:
    """Be one of the processes: train its seeds, and say how it ended."""
    from dataclasses import replace

    import torch

    from bancache.study.generations import run_generations
    from bancache.system.device import interruptible

    os.setsid()  # Ctrl-C goes to the process that asked for this one, which passes it on once
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    with interruptible() as interrupt:
        try:
            mine = replace(study, seeds=seeds)
            run_generations(mine, out, progress=_Notes(quiet), interrupt=interrupt, **settings)
        except BancacheError as error:
            sender.send((str(error), error.hint, error.exit_code))
        else:
            sender.send(None)


def _outcome(exit_code: int | None, receiver: Connection) -> _Failure | None:
    """Return what went wrong in a process that has ended, None where nothing did."""
    try:
        failure: _Failure | None = receiver.recv()
        return failure
    except EOFError:
        return f"a process ended with code {exit_code} in mid-work", "run the same command to go on", 1


class _Notes(Silent):
    """Says only what was begun: bars of several processes would write over one another."""

    def __init__(self, quiet: bool) -> None:
        self._reporter = console.Reporter(quiet=quiet)

    def note(self, text: str) -> None:
        """Print a line."""
        self._reporter.note(text)
