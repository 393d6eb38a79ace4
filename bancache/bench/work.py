"""The pieces of work that are timed, each a function of nothing that does one batch or one pass of it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bancache import losses
from bancache.dumping import DumpSettings, dump
from bancache.loader import Batch, Loader
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Stage

Clock = Callable[[], float]


def endless(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of epoch after epoch."""
    return itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())


class Student:
    """A net that learns, and nothing else: forward, loss, backward, optimizer."""

    def __init__(self, net: nn.Module) -> None:
        """Take a net on its device, and put it into the memory format that training has."""
        # torch's stubs do not know that ``to`` takes a memory format.
        net.train().to(memory_format=torch.channels_last)
        self.net = net
        self._optimizer = torch.optim.SGD(
            net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def step(self, batch: Batch) -> None:
        """Take one step on a batch that has targets."""
        assert batch.targets is not None
        loss = losses.ban_l(self.net(batch.images), batch.targets, batch.labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def copying(read: int, written: int, device: torch.device, *, count: int) -> Callable[[], None]:
    """Return a copy that moves as many bytes as ``read`` + ``written``, from memory that no cache holds.

    Args:
        read: Bytes that the work reads, in one call.
        written: Bytes that it writes.
        device: Where.
        count: Calls until the source repeats.
    """
    half = (read + written) // 2
    # Ones, since memory of zeros that nobody wrote to is one page, over and over.
    source = torch.ones((max(1, count), half), dtype=torch.uint8, device=device)
    target = torch.zeros(half, dtype=torch.uint8, device=device)
    turns = itertools.cycle(range(len(source)))
    return lambda: (target.copy_(source[next(turns)]), None)[1]


def loss_against_eager(batch: int, classes: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return our loss and torch's two, forward and backward, on random logits (batch, classes)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((batch, classes), generator=generator).to(device).requires_grad_()
    targets = torch.softmax(torch.randn((batch, classes), generator=generator) * 3, 1).to(device)
    labels = torch.randint(0, classes, (batch,), generator=generator).to(device)

    def ours() -> None:
        logits.grad = None
        losses.ban_l(logits, targets, labels).backward()  # type: ignore[no-untyped-call]

    def eager() -> None:
        logits.grad = None
        soft = F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="batchmean")
        (soft + F.cross_entropy(logits, labels)).backward()  # type: ignore[no-untyped-call]

    return {"loss": ours, "eager loss": eager}


class Shards:
    """Listens to a dump, and keeps how long its shards took; what opens and seals a cache is left out."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.seconds = clock, 0.0

    def note(self, text: str) -> None:
        """Say nothing."""

    def advance(self, amount: int) -> None:
        """Count nothing."""

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Stage]:
        """Time a piece of work."""
        began = self._clock()
        yield self
        self.seconds = self._clock() - began


def dump_once(
    teacher: Teacher, data: ImageSet, settings: DumpSettings, device: torch.device, clock: Clock
) -> tuple[float, float]:
    """Dump to a folder that is gone afterwards; return the seconds of all of it and those of its shards."""
    shards = Shards(clock)
    with tempfile.TemporaryDirectory() as folder:
        began = clock()
        out = Path(folder) / "bench.zarr"
        dump(teacher, data, DataSpec("digits"), out, settings, device=device, progress=shards)
        return clock() - began, shards.seconds


def ask_in_place(teacher: Teacher, images: torch.Tensor, batches: int) -> Any:
    """Ask the teacher about the same images so many times."""
    for _ in range(batches):
        teacher.logits(images)
