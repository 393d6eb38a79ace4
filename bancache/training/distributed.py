"""Processes that train one net together: each takes its share of every batch, all take the same steps.

The first of them writes; the others compute and follow. What they must do at the same step (save, stop, fail) they agree
on, so that none of them waits for one that has left.
"""

from __future__ import annotations

import inspect
import os
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
from bancache.system.ranks import ALONE, Rank

# Some may still be decoding images when others have long come.
_MEETING, _PATIENCE = timedelta(minutes=10), timedelta(seconds=30)
_LOST_HINT = "what ended it is said there; the same command goes on from the last saved state"


class ProcessGroup:
    """This process among those that train one net; alone, nothing here costs anything.

    Attributes:
        place: Which of how many it is.
    """

    def __init__(self, place: Rank = ALONE, store: Store | None = None) -> None:
        """Be one of several, for which ``gathered`` has opened the ways between them and a store that all reach."""
        self.place, self._store = place, store

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.place.rank == 0

    def parallel(self, net: nn.Module) -> nn.Module:
        """Return a net whose gradients are, after each backward pass, the mean over all processes."""
        if self.place.count == 1:
            return net
        shared, device = nn.parallel.DistributedDataParallel, next(net.parameters()).device
        # Each rank's running statistics are its own: they take no part in training, and the first's are kept.
        newer = "forward_sync_buffers" in inspect.signature(shared).parameters
        apart: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        return shared(net, device_ids=[device] if device.type == "cuda" else None, **apart)

    def agree(self, wish: int) -> int:
        """Return the largest wish of all processes, after the same step in each."""
        return wish if self.place.count == 1 else int(self._all(torch.tensor(wish)).max())

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """Return a scalar of each process, (count,), on the CPU; a process alone gets its own as it is."""
        return own if self.place.count == 1 else self._all(own.detach().cpu())

    def require_same(self, what: str, *numbers: int) -> None:
        """Refuse to go on with processes for which integers differ.

        Raises:
            UsageError: Saying what differs.
        """
        found = [self._all(torch.tensor(number)) for number in numbers]
        if any(int(numbers.min()) != int(numbers.max()) for numbers in found):
            self.part()
            raise UsageError(
                f"{what} is not the same for all {self.place.count} processes",
                hint="give all of them one command, and an --out on a file system that they share",
            )

    @contextmanager
    def led(self) -> Iterator[bool]:
        """Let the first process do what one must do for all; where it fails, all fail.

        Yields:
            Whether this process is the first.

        Raises:
            BancacheError: The first process failed; the exit code is its own.
        """
        failure = None
        try:
            yield self.leads
        except BancacheError as error:
            failure = error
        code = self._of_the_first(failure.exit_code if failure else 0)
        if code:
            self.part()
        if failure is not None:
            raise failure
        if code:
            raise _failed("the first process of this training failed", code)

    def part(self) -> None:
        """Go only when all have come here: who leaves early cuts off what others are still receiving.

        The first goes last: it keeps the store that the others hear from.
        """
        if self._store is None:
            return
        with suppress(RuntimeError):  # one of the others is gone already
            if self._store.add("bancache/parting", 1) == self.place.count:
                self._store.set("bancache/parted", "")
            self._store.wait(["bancache/parted"], _PATIENCE)
            if self.leads:
                self._store.wait(["bancache/left"], _PATIENCE)
            elif self._store.add("bancache/leaving", 1) == self.place.count - 1:
                self._store.set("bancache/left", "")  # which is not answered

    def _of_the_first(self, code: int) -> int:
        if self.place.count == 1:
            return code
        said = torch.tensor(code)
        dist.broadcast(said, 0)
        return int(said)

    def _all(self, own: torch.Tensor) -> torch.Tensor:
        if self.place.count == 1:
            return own.reshape(1)
        found = [torch.empty_like(own) for _ in range(self.place.count)]
        dist.all_gather(found, own)
        return torch.stack(found)


@contextmanager
def gathered(place: Rank, device: torch.device, progress: Progress) -> Iterator[ProcessGroup]:
    """Meet the other processes where the launcher's variables say, for as long as they train together.

    Sums go by NCCL between GPUs and by gloo between CPUs; what the processes agree on goes by gloo.

    Raises:
        BancacheError: Another process ended meanwhile, or did not come.
    """
    if place.count == 1:
        yield ProcessGroup(place)
        return
    if place.rank == 0 and (warning := stale_peers(os.environ)):
        progress.note(warning)
    with _losses():
        if device.type == "cuda":
            torch.cuda.set_device(torch.empty(0, device=device).device)  # with its number, which "cuda" lacks
        store, rank, count = next(rendezvous("env://", timeout=_MEETING))
        kinds = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(kinds, store=store, rank=rank, world_size=count)
        ranks = ProcessGroup(place, store)
        try:
            yield ranks
        except StoppedError:
            ranks.part()
            raise
        ranks.part()
    # Left standing where something failed: to end it, too, asks the others.
    dist.destroy_process_group()


def stale_peers(environment: Mapping[str, str]) -> str:
    """Return a warning where torchrun would restart processes of gloo and give them the addresses of the dead.

    >>> stale_peers({"TORCHELASTIC_MAX_RESTARTS": "0"})
    ''
    """
    shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or environment.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return ""
    return "restarts by torchrun may hang unless TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 is set for it"


@contextmanager
def _losses() -> Iterator[None]:
    """Say in a line that another process is gone, which torch says in many."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise _failed("another process of this training ended or did not come", 1) from error


def _failed(what: str, code: int) -> BancacheError:
    error = BancacheError(what, hint=_LOST_HINT)
    error.exit_code = code
    return error
