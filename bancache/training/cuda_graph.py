"""A whole step as one CUDA graph: render, forward, loss, backward, SGD, from inputs that stay where they are.

An epoch's addresses, labels and learning rates go to the device at once; a counter there says which step
is next. So an epoch is as many replays, and the host says nothing in between. Before a step can be captured it has to
run a few times, and what that changed is put back, so that a graph ends with the bits of the eager loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from bancache.loader import Batch, Loader
from bancache.loader.loader import CodedTargets
from bancache.training.run import Run
from bancache.training.state import TrainState

# The first step of SGD makes its buffers, the first of cuDNN chooses its kernels, the first of triton compiles.
WARM_UPS = 3
_CAPTURING = ("cuda",)

Replay = Callable[[], None]


class StaticStep:
    """A step that finds its inputs by itself: in buffers that are filled once an epoch, at a counter."""

    def __init__(self, loader: Loader, step: Callable[[Batch], None], rate: torch.Tensor) -> None:
        """Set the buffers up.

        Args:
            loader: Makes batches from addresses, on its device.
            step: What to do with a batch.
            rate: The learning rate that the optimizer reads, one number on the device, (1,).
        """
        rows = max(loader.steps, WARM_UPS + 1)  # enough to warm up in; address 0 is valid
        self._loader, self._step, self._rate = loader, step, rate
        self._addresses = torch.zeros((rows, 2, loader.batch_size), dtype=torch.int64, device=loader.device)
        self._rates = torch.zeros(rows, dtype=rate.dtype, device=loader.device)
        self._epoch = -1
        self._next = torch.zeros(1, dtype=torch.int64, device=loader.device)

    def fill(self, epoch: int, rates: Iterable[float], *, start: int) -> None:
        """Bring in an epoch, of which ``start`` steps are done, with the learning rate of each step."""
        self._next.fill_(start)
        if epoch == self._epoch:
            return
        addresses = self._loader.begin(epoch)
        shape = (self._loader.steps, self._loader.batch_size)
        both = np.stack([addresses.samples.reshape(shape), addresses.views.reshape(shape)], axis=1)
        self._addresses[: len(both)].copy_(torch.from_numpy(both))
        self._rates[: len(both)].copy_(torch.tensor(list(rates), dtype=torch.float64))
        self._epoch = epoch

    def __call__(self) -> None:
        """Take the next step."""
        samples, views = self._addresses.index_select(0, self._next)[0]
        torch.index_select(self._rates, 0, self._next, out=self._rate)
        self._step(self._loader.batch(samples, views))
        self._next += 1

    def forget(self) -> None:
        """Fill the buffers anew at the next epoch, whichever that is."""
        self._epoch = -1

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What a step changes here."""
        return [self._rate, self._next]


def why_not(run: Run, loader: Loader) -> str:
    """Return why the steps of a run cannot be captured, or nothing."""
    if loader.device.type not in _CAPTURING:
        return f"a CUDA graph needs a CUDA device, and this run is on '{loader.device.type}'"
    if run.ranks > 1:
        return "several processes take every step together"
    if not loader.in_place:
        return "batches are made on the host and copied at every step"
    if loader.targets is not None and not isinstance(loader.targets, CodedTargets):
        return "a teacher is asked at every step"
    if loader.targets is not None and run.recipe.loss == "dkpp":
        return "loss 'dkpp' permutes targets by keys that the host computes"
    return ""


def device_rate(optimizer: torch.optim.SGD, device: torch.device) -> torch.Tensor:
    """Let an optimizer read its learning rate from the device, and return where, (1,).

    On a GPU the update is one kernel for all parameters, which reads a float32; elsewhere nothing changes but
    the place of the number, which keeps all its bits.
    """
    there = device.type == "cuda"
    rate = torch.zeros(1, dtype=torch.float32 if there else torch.float64, device=device)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if there:
            group["fused"] = True
    return rate


def capture(body: Replay, device: torch.device) -> Replay:
    """Run ``body`` a few times on a CUDA device, capture it, and return what replays it.

    Raises:
        RuntimeError: Something in it cannot be captured.
    """
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            body()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Only this thread's work is captured: another one is fetching the next view index.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        body()
    replay: Replay = graph.replay
    return replay


@contextmanager
def put_back(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState, others: Iterable[torch.Tensor]
) -> Iterator[None]:
    """Leave everything that training changes as it was, at the addresses where it is: also the generators.

    Buffers of the optimizer that did not exist before become zero, which the next step takes as it takes none.
    """
    device = state.loss.device
    known = [*model.parameters(), *model.buffers(), state.loss, state.correct, *others, *_buffers(optimizer)]
    before = [(tensor, tensor.detach().clone()) for tensor in known]
    generator = torch.get_rng_state()
    generator_there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        with torch.no_grad():
            new = {id(tensor): tensor for tensor in _buffers(optimizer)}
            for tensor, value in before:
                tensor.copy_(value)
                new.pop(id(tensor), None)
            for tensor in new.values():
                tensor.zero_()
        optimizer.zero_grad(set_to_none=True)
        torch.set_rng_state(generator)
        if generator_there is not None:
            torch.cuda.set_rng_state(generator_there, device)


def _buffers(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [
        value
        for held in optimizer.state.values()
        for value in held.values()
        if isinstance(value, torch.Tensor)
    ]
