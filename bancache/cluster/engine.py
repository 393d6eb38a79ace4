"""Dask: a cluster of this machine, or one that is there already.

A scheduler runs the code of whoever reaches it. A local one listens on 127.0.0.1 alone and speaks TLS with a key of its
own, for other users of the machine reach that address, too.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from bancache.errors import ClusterError, MissingExtraError
from bancache.system.memory import require_memory
from bancache.system.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_PATIENCE_SECONDS = 10
_LOOK_EVERY_SECONDS = 1.0
_LOOPBACK = "127.0.0.1"
_ENCRYPTED = ("tls", "wss")
_LOUD = ("distributed", "tornado")
# While one thread of a worker runs the teacher, others write; a GPU finishes shards faster than one disk answers.
_THREADS, _GPU_THREADS = 2, 8
# Dask's processes look at their own stacks a hundred times a second, and at their event loops fifty times: CPU time that the
# teacher lacks, for pages of the dashboard that show nothing of torch.
LOCAL_CONFIG = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
_WORKER_BYTES = 300_000_000  # torch, without what processes share of it


@dataclass
class Engine:
    """What runs tasks.

    Attributes:
        executor: Takes the tasks.
        slots: Returns how many tasks run at once now, 0 while there is no worker.
        explain: Returns an error of the engine, or of a task, as what to raise.
    """

    executor: Executor
    slots: Callable[[], int]
    explain: Callable[[BaseException], BaseException] = field(default=lambda error: error)


def require_dask() -> None:
    """Raise ``MissingExtraError`` if Dask is not installed."""
    try:
        importlib.import_module("distributed")
    except ImportError as error:
        raise MissingExtraError("Dask is not installed", hint='pip install "bancache[cluster]"') from error


@contextmanager
def local_engine(workers: int, *, gpus: bool, progress: Progress) -> Iterator[Engine]:
    """Start processes on this machine, one for each worker, and end them.

    With ``gpus``, each sees one of the GPUs, if there are any; else the cores are shared out.

    Raises:
        OutOfMemoryError: Torch alone would take more memory in so many processes than is free.
    """
    require_dask()
    require_memory(workers * _WORKER_BYTES, f"{workers:,} workers", hint="start fewer: --workers")
    import dask
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    _be_quiet()
    visible = _gpus() if gpus else []
    threads = _GPU_THREADS if visible else _THREADS
    keys = Security.temporary()
    # Each of these would listen on all of the machine's addresses.
    here = {"host": _LOOPBACK, "dashboard_address": f"{_LOOPBACK}:0", "protocol": "tls://", "security": keys}
    nanny = {
        **here,
        "nthreads": threads,
        "preload": ["bancache.cluster.worker"],
        "memory_limit": 0,  # tasks bring no data of their own, and Dask would end a worker for what torch takes
        "silence_logs": logging.CRITICAL,
    }
    spec = {
        number: {"cls": Nanny, "options": {**nanny, "env": _environment(number, workers, visible)}}
        for number in range(workers)
    }
    scheduler = {"cls": Scheduler, "options": {**here, "port": 0}}
    with (
        dask.config.set(LOCAL_CONFIG),
        SpecCluster(spec, scheduler, security=keys, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, security=keys, set_as_default=False) as client,
    ):
        progress.log(f"{workers} workers: {_pages(cluster.scheduler_info)}")
        yield _engine(client, progress)


@contextmanager
def remote_engine(address: str, progress: Progress) -> Iterator[Engine]:
    """Use the workers of a scheduler that is there; certificates for ``tls://`` come from Dask's configuration.

    Raises:
        ClusterError: It does not answer within ten seconds.
    """
    require_dask()
    from distributed import Client

    _be_quiet()
    if not is_private(address):
        progress.warn(
            f"{address} is neither this machine nor encrypted: whoever reaches that scheduler runs code on its workers; "
            "use tls:// with certificates"
        )
    try:
        client = Client(address, timeout=_PATIENCE_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise ClusterError(
            f"no scheduler answers at {address} within {_PATIENCE_SECONDS} s: {_first_line(error)}",
            hint="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
        ) from error
    with client:
        yield _engine(client, progress)


def is_private(address: str) -> bool:
    """Return whether an address is encrypted, or of this machine.

    >>> [is_private(a) for a in ("tls://10.0.0.1:1", "tcp://127.0.0.1:1", "localhost:1", "node7:1", "tcp://[::1")]
    [True, True, True, False, False]
    """
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
    except ValueError:
        return False  # nothing answers there, which is said later
    host = parts.hostname or ""
    with suppress(ValueError):
        return parts.scheme in _ENCRYPTED or ipaddress.ip_address(host).is_loopback
    return parts.scheme in (*_ENCRYPTED, "inproc") or host == "localhost"


def _engine(client: Client, progress: Progress) -> Engine:
    """Return an engine whose tasks are retried when their worker dies."""
    return Engine(_Executor(client), _Slots(client, progress), _explain)


class _Executor(Executor):
    """Submits tasks to Dask.

    Dask's own executor ends in a TypeError where the worker of a task is lost just after it, while its answer is under way.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(self, task: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        answer: Future[T] = Future()
        found = self._client.submit(task, *args, pure=False, **kwargs)
        answer.add_done_callback(partial(_take_back, found))
        self._client.loop.add_callback(_pass_on, found, answer)
        return answer


def _take_back(found: Any, answer: Future[T]) -> None:
    """Workers stop what nobody wants any more."""
    if answer.cancelled() and not found.cancelled():
        found.cancel()


async def _pass_on(found: Any, answer: Future[T]) -> None:
    try:
        # What `result` waits for in a thread; Dask has one thread for all callbacks, where one answer would wait for another.
        result = await found._result()
    except CancelledError:
        answer.cancel()
        answer.set_running_or_notify_cancel()
    except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
        if answer.set_running_or_notify_cancel():
            answer.set_exception(error)
    else:
        if answer.set_running_or_notify_cancel():  # else it was cancelled meanwhile
            answer.set_result(result)


class _Slots:
    """Counts the threads of all workers, every second at most, and says when a worker is gone."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client, self._progress = client, progress
        self._scheduler = client.scheduler_info(n_workers=0)["id"]
        self._workers: dict[str, int] = {}
        self._looked = float("-inf")

    def __call__(self) -> int:
        if self._client.status == "closed":
            raise _gone()
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = now
            with suppress(OSError, TimeoutError):
                # Dask finds another one at the same address, and may never answer for the tasks of the one before.
                if self._client.scheduler_info(n_workers=0)["id"] != self._scheduler:
                    raise _gone()
                found = dict(self._client.nthreads())
                for gone in sorted(self._workers.keys() - found.keys()):
                    self._progress.log(f"worker {gone} is gone; what it was doing is done again")
                self._workers = found
        return sum(self._workers.values())


def _explain(error: BaseException) -> BaseException:
    """Return what an error of the engine, or of a task, means."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, KilledWorker):
        return ClusterError(
            f"{error.allowed_failures + 1} workers died of it, the last at {error.last_worker.address}",
            hint="look at the workers' memory; the same command goes on",
        )
    if isinstance(error, CancelledError | CommClosedError):
        return _gone()
    if isinstance(error, ImportError | AttributeError):
        return ClusterError(
            f"a worker cannot run this version: {_first_line(error)}",
            hint="install the same versions on all workers",
        )
    return error


def _gone() -> ClusterError:
    return ClusterError("the scheduler is gone", hint="start it again; the same command goes on")


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, without taking one."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    return list(map(str, range(torch.cuda.device_count())))


def _environment(number: int, workers: int, gpus: list[str]) -> dict[str, str]:
    """Return the variables of one worker: its GPU, its share of the cores unless the user has set that, and of the memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // workers)))
    found = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), share)
    found["LOCAL_WORLD_SIZE"] = str(workers)  # as torchrun says it
    return {**found, "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else found


def _pages(info: Any) -> str:
    """Return the address at which a browser sees the cluster."""
    port = info["services"]["dashboard"]
    try:
        importlib.import_module("bokeh")
    except ImportError:
        return f"http://{_LOOPBACK}:{port}/info/main/workers.html (the whole dashboard: pip install bokeh)"
    return f"http://{_LOOPBACK}:{port}/status"


def _be_quiet() -> None:
    """Keep the logs of Dask and of its tornado from the terminal: what a user should know is said in one line."""
    # Dask gives some of its loggers a level of their own, which that of their parent does not reach.
    for name in (*logging.root.manager.loggerDict, *_LOUD):
        if name.partition(".")[0] in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
