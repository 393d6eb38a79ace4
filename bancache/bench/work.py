"""The pieces of work that are timed; most are functions without arguments that do one batch."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bancache import losses
from bancache.dumping import DumpSettings, dump
from bancache.loader import Batch, Loader
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent, Stage

Clock = Callable[[], float]


def endless(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of epoch after epoch."""
    return itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())


class Student:
    """A model in training: forward, loss, backward, optimizer."""

    def __init__(self, model: nn.Module) -> None:
        """Take a model on its device, and convert it to channels_last memory format, as in training."""
        self.model = model.train().to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def step(self, batch: Batch) -> None:
        """Take one step on a batch that has targets."""
        assert batch.targets is not None
        loss = losses.ban_l(self.model(batch.images), batch.targets, batch.labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def copying(read: int, written: int, device: torch.device, *, count: int) -> Callable[[], None]:
    """Return a function that copies as many bytes per call as work that reads and writes so many bytes.

    The source is memory that no CPU cache holds: it repeats after ``count`` calls.
    """
    half = (read + written) // 2
    # Ones: zeros that were never written may all be one page of memory.
    source = torch.ones((max(1, count), half), dtype=torch.uint8, device=device)
    target = torch.zeros(half, dtype=torch.uint8, device=device)
    turns = itertools.cycle(range(len(source)))
    return lambda: (target.copy_(source[next(turns)]), None)[1]


def loss_against_eager(batch: int, classes: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return our loss and the sum of torch's two losses, forward and backward, on random logits (batch, classes)."""
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


class ShardTimer(Silent):
    """Times the shards of a dump, without opening and completing the cache."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.seconds = clock, 0.0

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Stage]:
        """Time a stage; the last one is that of the shards."""
        began = self._clock()
        with super().stage(title, total=total, unit=unit, done=done) as stage:
            yield stage
        self.seconds = self._clock() - began


def dump_once(
    teacher: Teacher, data: ImageSet, settings: DumpSettings, device: torch.device, clock: Clock
) -> tuple[float, float]:
    """Dump to a temporary folder; return the seconds of the whole dump and the seconds of its shards."""
    shards = ShardTimer(clock)
    with tempfile.TemporaryDirectory() as folder:
        began = clock()
        out = Path(folder) / "bench.zarr"
        dump(teacher, data, DataSpec("digits"), out, settings, device=device, progress=shards)
        return clock() - began, shards.seconds


def run_teacher(teacher: Teacher, images: torch.Tensor, batches: int) -> None:
    """Run the teacher on the same images ``batches`` times."""
    for _ in range(batches):
        teacher.logits(images)
