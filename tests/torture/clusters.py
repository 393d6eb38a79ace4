"""Dumps by workers of Dask whose processes are killed or stopped, that run twice, or whose object store fails."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess as Command
from pathlib import Path
from typing import Any, Self

from contracts.killing import tree
from contracts.object_store import BUCKET, FAULTS, VARIABLES
from torture.copies import store
from torture.rows import Ground, NotHere, Row

from bancache.system.bucket import Bucket

_VIEWS = 18
# A scheduler waits five seconds at least for a worker that it does not hear of.
_STOPPED_SECONDS, _GIVEN_UP_SECONDS = 8.0, 4.0
_PATIENCE_SECONDS = 120.0
_HERE = "127.0.0.1"
_LOADED = ["distributed", "zarr.codecs", "bancache_cli.app", "bancache.sources.npz", "bancache.cluster.fill"]


@dataclass
class Cluster:
    """A scheduler and its workers, each in a process of its own; they are forks of one that has everything loaded."""

    workers: int
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Command] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start it."""
        try:
            importlib.import_module("distributed")
        except ImportError as error:
            raise NotHere("distributed is not installed") from error
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload(_LOADED)
        with socket.socket() as free:
            free.bind((_HERE, 0))
            self.address = f"tcp://{_HERE}:{free.getsockname()[1]}"
        self.begin()
        return self

    def begin(self) -> None:
        """Start all processes, at the same address each time."""
        self.processes = [self.start(_schedule), *(self.start(_work) for _ in range(self.workers))]

    def start(self, what: Callable[..., None], *more: Any) -> Command:
        """Start one process."""
        given = (self.environment, what, self.address, *more)
        process = self._fork.Process(target=_run, args=given, daemon=True)
        process.start()
        return process

    def kill(self, number: int) -> None:
        """Kill a worker, 1 and up, and start another one, or the scheduler, 0, with all that it takes along."""
        self._end([self.processes[number]] if number else self.processes)
        if number:
            self.processes[number] = self.start(_work)
        else:
            self.begin()

    def __exit__(self, *error: object) -> None:
        """End all of its processes."""
        self._end(self.processes)

    def _end(self, processes: list[Command]) -> None:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()

    def dump(self, argv: list[str], log: Path, meanwhile: Callable[[Command], None]) -> int:
        """Run a command, do something meanwhile, and return its exit code; -9 if it hangs."""
        command = self.start(_command, argv, log)
        disturber = threading.Thread(target=meanwhile, args=(command,))
        disturber.start()
        command.join(_PATIENCE_SECONDS)
        command.kill()
        command.join()
        disturber.join()
        assert command.exitcode is not None
        return command.exitcode


def _run(environment: dict[str, str], what: Callable[..., None], *args: Any) -> None:
    import torch

    from bancache.system import bucket

    os.environ.update(environment)
    torch.set_num_threads(1)
    bucket.PATIENCE = bucket.Patience(total=60.0, pause=0.02, read=0.5, request=1.0)
    what(*args)


def _schedule(address: str) -> None:
    from distributed import Scheduler

    async def serve() -> None:
        port = int(address.rpartition(":")[2])
        async with Scheduler(host=_HERE, port=port, dashboard=False, worker_ttl=1) as scheduler:
            await scheduler.finished()

    _print_to(os.devnull)
    asyncio.run(serve())


def _work(address: str) -> None:
    from distributed import Worker

    async def serve() -> None:
        async with Worker(address, host=_HERE, nthreads=2, dashboard=False, memory_limit=0) as worker:
            await worker.finished()

    _print_to(os.devnull)
    asyncio.run(serve())


def _command(address: str, argv: list[str], log: Path) -> None:
    from bancache_cli.app import run

    _print_to(log)
    sys.exit(run([*argv, "--scheduler", address]))


def _print_to(log: Path | str) -> None:
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(opened, descriptor)


def _argv(ground: Ground, out: Path | str) -> list[str]:
    given = ["--num-views", str(_VIEWS), "--batch-size", "16"]
    return ["dump", "--teacher", str(ground.teacher), "--out", str(out), *given]


def _whole(ground: Ground) -> dict[str, bytes]:
    """Return the files of an undisturbed dump by one process."""
    out = ground.place("workers") / "a.zarr"
    code, said = ground.forker.run(_argv(ground, out))
    if code:
        raise SystemExit(said)
    return tree(out)


@dataclass
class Trial:
    """One dump by the workers of a cluster, to a folder of its own.

    Attributes:
        number: Of the trial.
        met: How many faults came before the end.
    """

    cluster: Cluster
    chance: random.Random
    number: int
    argv: list[str]
    out: Path
    log: Path
    met: int = 0

    def wait(self, command: Command) -> None:
        """Wait until some shards are recorded, and a moment longer."""
        count = self.chance.randrange(_VIEWS - 2)
        while command.is_alive() and self._recorded() < count:
            time.sleep(0.002)
        time.sleep(self.chance.uniform(0, 0.05))
        self.met += command.is_alive()

    def dump(self, meanwhile: Callable[[Command], None] = lambda command: None) -> int:
        """Run the command and return its exit code."""
        return self.cluster.dump(self.argv, self.log, meanwhile)

    def _recorded(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return len(list((self.out / ".regions").iterdir()))
        return 0


def _killed(trial: Trial) -> bool:
    """Three workers are killed, and in every second trial the scheduler with the rest; the same command goes on."""

    def kill(command: Command) -> None:
        for _ in range(3):
            trial.wait(command)
            trial.cluster.kill(trial.chance.randint(1, 2))
        if trial.number % 2:
            trial.cluster.kill(0)

    return trial.dump(kill) in {0, 1} and 0 in {trial.dump(), trial.dump()}


def _stopped(trial: Trial) -> bool:
    """The scheduler gives a worker up, which is stopped and goes on: the command ends without an error."""
    waited = 0.0

    def stop(command: Command) -> None:
        nonlocal waited
        trial.wait(command)
        pid = trial.cluster.processes[trial.chance.randint(1, 2)].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        while (now := time.monotonic() - stopped) < _STOPPED_SECONDS:
            waited = now if command.is_alive() else waited
            time.sleep(0.05)
        os.kill(pid, signal.SIGCONT)

    code = trial.dump(stop)
    trial.cluster.kill(0)  # the worker has left
    trial.met = waited > _GIVEN_UP_SECONDS  # it had shards, which the other one did in the end
    return code == 0


def _twice(trial: Trial) -> bool:
    """Two commands dump one cache at once by the same workers, one of which is killed; both end well."""
    codes = []

    def kill(command: Command) -> None:
        trial.wait(command)
        trial.cluster.kill(1)

    def too(command: Command) -> None:
        codes.append(trial.dump(kill))

    return trial.dump(too) == 0 and codes == [0]


def _in_a_folder(trial_of: Callable[[Trial], bool]) -> Callable[[Ground], Iterator[bool]]:
    """Return a row of trials with two workers."""

    def run(ground: Ground) -> Iterator[bool]:
        whole, chance = _whole(ground), random.Random(22)
        with Cluster(2) as cluster:
            for number in ground.numbers(20):
                folder = ground.place("trial")
                out, log = folder / "a.zarr", folder / "log"
                trial = Trial(cluster, chance, number, _argv(ground, out), out, log)
                right = trial_of(trial)
                if trial.met:  # a fault may come too late
                    yield right and tree(out) == whole and _is_plain(log)

    return run


def failing_store(ground: Ground) -> Iterator[bool]:
    """Every fourth to eighth request of four workers and of the command meets a fault, and a worker is killed."""
    whole, chance = _whole(ground), random.Random(21)
    with (
        store() as way,
        Cluster(4, {**VARIABLES, "AWS_ENDPOINT_URL": f"http://{_HERE}:{way.port}"}) as cluster,
    ):

        def kill(command: Command) -> None:
            time.sleep(chance.uniform(0.5, 3))
            cluster.kill(chance.randint(1, 4))

        for number in ground.numbers(20):
            log, out = ground.place("trial") / "log", f"s3://{BUCKET}/{number}/a.zarr"
            way.set(FAULTS[number % len(FAULTS)], every=chance.randint(4, 8))
            code, met = cluster.dump(_argv(ground, out), log, kill), way.met
            way.set("")
            right = code in {0, 6} and cluster.dump(_argv(ground, out), log, lambda command: None) == 0
            there = Bucket(out)
            found = {key: there.get(key, info.size) for key, info in there.listed().items()}
            yield met > 0 and right and found == whole and _is_plain(log)


def _is_plain(log: Path) -> bool:
    """Whether commands printed no traceback."""
    return "Traceback" not in log.read_text()


ROWS = (
    Row(
        22,
        "SIGKILL of workers of a cluster and of their scheduler, at random instants",
        _in_a_folder(_killed),
    ),
    Row(22, "SIGSTOP of a worker for longer than its scheduler waits, SIGCONT", _in_a_folder(_stopped)),
    Row(22, "two dumps of one cache by the same workers, one of them killed", _in_a_folder(_twice)),
    Row(21, "requests of four workers met by faults, one of them killed", failing_store),
)
