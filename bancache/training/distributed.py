"""Data-parallel training: every process computes a share of each batch, and all take the same steps.

The main process writes all files. The processes agree on each save, stop and failure at the same step, so that none
waits for a process that has ended.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from bancache.errors import BancacheError, StoppedError, UsageError
from bancache.system.progress import Progress
from bancache.system.ranks import ALONE, TRAIN_ALONE, Rank

# A process may still decode its images while the others wait for it.
_CONNECT_TIMEOUT, _CLOSE_TIMEOUT = timedelta(minutes=10), timedelta(seconds=30)
_PATIENCE_SECONDS = 5.0


class ProcessGroup:
    """The processes that train one model, seen from one of them. With one process, every method is free."""

    def __init__(self, rank: Rank = ALONE, store: Store | None = None) -> None:
        """Describe a group; ``join_process_group`` connects it and passes the store that all processes reach."""
        self.rank, self._store = rank, store

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank.rank == 0

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return a model whose gradients are averaged over all processes in each backward pass."""
        if self.rank.count == 1:
            return model
        wrap, device = nn.parallel.DistributedDataParallel, next(model.parameters()).device
        # Each process keeps its own BatchNorm statistics: they do not affect training, and rank 0's are saved.
        newer = "forward_sync_buffers" in inspect.signature(wrap).parameters
        options: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        return wrap(model, device_ids=[device] if device.type == "cuda" else None, **options)

    def all_reduce_max(self, value: int) -> int:
        """Return the largest value of all processes, which call it after the same step."""
        return value if self.rank.count == 1 else int(self.all_gather(torch.tensor(value)).max())

    def all_gather(self, value: torch.Tensor) -> torch.Tensor:
        """Return the scalar of each process, (count,), on the CPU; one process gets its own scalar unchanged."""
        if self.rank.count == 1:
            return value
        own = value.detach().cpu()
        values = [torch.empty_like(own) for _ in range(self.rank.count)]
        dist.all_gather(values, own)
        return torch.stack(values)

    def require_same(self, what: str, *numbers: int) -> None:
        """Check that every process has the same integers; ``what`` names them in the error."""
        gathered = [self.all_gather(torch.tensor(number)) for number in numbers]
        if any(int(values.min()) != int(values.max()) for values in gathered):
            self.close()
            raise UsageError(
                f"{what} is not the same for all {self.rank.count} processes",
                hint="start all of them with one command, and put --out on a shared file system",
            )

    @contextmanager
    def main_first(self) -> Iterator[bool]:
        """Run the body in the main process before any process continues; yields whether this is the main process.

        If the main process fails, all fail, with the same exit code.
        """
        failure = None
        try:
            yield self.is_main
        except BancacheError as error:
            failure = error
        code = failure.exit_code if failure else 0
        if self.rank.count > 1:
            shared = torch.tensor(code)
            dist.broadcast(shared, 0)
            code = int(shared)
        if code:
            self.close()
            raise failure or _peer_error("the main process of this training failed", code)

    def close(self) -> None:
        """Wait until all processes arrive here, so that no process ends while others still receive data from it.

        The main process ends last, because it serves the store.
        """
        if self._store is None:
            return
        with suppress(RuntimeError):  # another process has ended already
            if self._store.add("bancache/arrived", 1) == self.rank.count:
                self._store.set("bancache/all_arrived", "")
            self._store.wait(["bancache/all_arrived"], _CLOSE_TIMEOUT)
            if self.is_main:
                self._store.wait(["bancache/others_left"], _CLOSE_TIMEOUT)
            elif self._store.add("bancache/leaving", 1) == self.rank.count - 1:
                self._store.set("bancache/others_left", "")  # the store sends no reply to a set


@contextmanager
def join_process_group(rank: Rank, device: torch.device, progress: Progress) -> Iterator[ProcessGroup]:
    """Connect to the other processes of this training through torchrun's variables MASTER_ADDR and MASTER_PORT.

    Gradients are averaged by NCCL between GPUs and by gloo between CPUs. All other messages use gloo.
    """
    if rank.count == 1:
        yield ProcessGroup(rank)
        return
    if rank.rank == 0 and (warning := stale_peers(os.environ)):
        progress.warn(warning)
    with _peer_failures():
        if device.type == "cuda":
            torch.cuda.set_device(torch.empty(0, device=device).device)  # with an index, which "cuda" lacks
        with _waiting(rank, progress):
            store, number, count = next(rendezvous("env://", timeout=_CONNECT_TIMEOUT))
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count)
        group = ProcessGroup(rank, store)
        try:
            yield group
        except StoppedError:
            group.close()
            raise
        group.close()
    # Not after a failure: destroying the group waits for the other processes.
    dist.destroy_process_group()


@contextmanager
def _waiting(rank: Rank, progress: Progress) -> Iterator[None]:
    """Say for whom this process waits if the others do not come within seconds; let Ctrl-C end the wait at once."""
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    text = (
        f"RANK {rank.rank} of WORLD_SIZE {rank.count} waits at {address} for the other processes of this training; "
        f"{TRAIN_ALONE}"
    )
    timer = threading.Timer(_PATIENCE_SECONDS, progress.warn, [text])
    timer.daemon = True
    timer.start()
    # torch waits where Python handles no signal; nothing has been written yet.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if in_main else None
    try:
        yield
    finally:
        timer.cancel()
        if in_main:
            signal.signal(signal.SIGINT, before)


def stale_peers(environment: Mapping[str, str]) -> str:
    """Return a warning if processes that torchrun restarts would get the addresses of ended ones, else an empty string.

    >>> stale_peers({"TORCHELASTIC_MAX_RESTARTS": "0"})
    ''
    """
    shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or environment.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return ""
    return "restarts by torchrun may hang; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"


@contextmanager
def _peer_failures() -> Iterator[None]:
    """Replace torch's long message about a lost process by one line."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise _peer_error("another process of this training ended or did not connect", 1) from error


def _peer_error(what: str, code: int) -> BancacheError:
    error = BancacheError(
        what, hint="see the output of that process; the same command resumes from the last saved state"
    )
    error.exit_code = code
    return error
