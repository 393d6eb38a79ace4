"""Takes the steps of an epoch, either eagerly or by replaying a CUDA graph. Both give the same bits.

A graph has a whole step: render, forward, loss, backward, optimizer, average. The sample and view ids and the learning rates of an
epoch are copied to the device at once, and a counter on the device selects the next step. A step has to run a few
times before it can be captured; ``put_back`` undoes these runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch

from bancache.errors import UsageError
from bancache.loader import Batch, Loader
from bancache.loader.targets import CodedTargets
from bancache.system.capturing import WARM_UPS, Replay, can_capture, capture
from bancache.system.progress import Progress
from bancache.training.options import GraphMode
from bancache.training.run import Run
from bancache.training.state import TrainState
from bancache.training.step import Step


class Stepper(Protocol):
    """Takes the steps of a run."""

    def begin(self, epoch: int, rates: list[float], start: int) -> None:
        """Go to step ``start`` of an epoch, whose steps have the learning rates ``rates``."""

    def take(self) -> None:
        """Take the next step."""


def make_stepper(loader: Loader, step: Step, mode: GraphMode, progress: Progress) -> Stepper:
    """Return a stepper that replays a CUDA graph if ``mode`` allows it and it is possible, else an eager one."""
    reason = "" if mode == "off" else why_not(step.run, loader)
    if mode != "off" and not reason:
        try:
            return captured([(loader, step)])[0]
        except RuntimeError as error:  # torch raises it when an operation cannot be captured
            reason = str(error).splitlines()[0]
    if mode == "on":
        raise UsageError(f"the step cannot be one CUDA graph: {reason}", hint="leave out --graph")
    if reason and loader.device.type == "cuda":
        progress.note(f"step by step, not as one CUDA graph: {reason}")
    return Eager(loader, step)


class Eager:
    """Launches every operation of every step from the host."""

    def __init__(self, loader: Loader, step: Step) -> None:
        """Let the optimizer read its rate where the model is."""
        self._loader, self._step, self._optimizer = loader, step, step.state.optimizer
        self._rate = device_rate(self._optimizer, loader.device) if loader.device.type == "cuda" else None
        self._steps: Iterator[tuple[Batch, float]] = iter(())

    def begin(self, epoch: int, rates: list[float], start: int) -> None:
        """Go to step ``start`` of an epoch."""
        self._step.epoch.fill_(epoch)
        self._steps = zip(self._loader.epoch(epoch, start=start), rates[start:], strict=True)

    def take(self) -> None:
        """Take the next step."""
        batch, rate = next(self._steps)
        if self._rate is not None:
            self._rate.fill_(rate)
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
        self._step(batch)


class Replayed:
    """Replays a captured step; of runs that share a graph, each begins its own epoch, and any takes all steps."""

    def __init__(self, static: StaticStep, replay: Replay) -> None:
        """Keep what was captured."""
        self._static, self.take = static, replay

    def begin(self, epoch: int, rates: list[float], start: int) -> None:
        """Go to step ``start`` of an epoch."""
        self._static.fill(epoch, rates, start=start)


def captured(runs: Sequence[tuple[Loader, Step]]) -> list[Stepper]:
    """Capture a step of each run in one graph, leave the runs' states unchanged, and return a stepper for each run.

    Each run has a CUDA stream of its own, so that the kernels of one fill the gaps that the others leave. The runs have
    the bits that each has alone, unless their models draw random numbers: that is a RuntimeError for several runs.
    """
    statics = [_static(*run) for run in runs]
    device = runs[0][0].device
    with ExitStack() as stack:
        for (_, step), static in zip(runs, statics, strict=True):
            stack.enter_context(put_back(step.state, static.tensors))
        if len(runs) > 1:
            before = random_state(device)
            for static in statics:
                static()
            if not all(map(torch.equal, before, random_state(device))):
                raise RuntimeError("the models draw random numbers, such as for dropout")
        replay = capture(beside_one_another(statics, device), device)
    for static in statics:
        static.forget()
    return [Replayed(static, replay) for static in statics]


def _static(loader: Loader, step: Step) -> StaticStep:
    state, recipe = step.state, step.run.recipe
    static = StaticStep(loader, step, device_rate(state.optimizer, loader.device))
    state.model.train()
    first = min(state.epoch, recipe.epochs - 1)  # all epochs may be done, with only the checkpoint missing
    static.fill(first, recipe.learning_rates(0, loader.steps), start=0)
    if isinstance(loader.targets, CodedTargets):
        loader.targets.hold()
    return static


def beside_one_another(bodies: Sequence[Replay], device: torch.device) -> Replay:
    """Return what runs all bodies, each on a CUDA stream of its own; one body stays where it is."""
    if len(bodies) == 1 or device.type != "cuda":

        def in_turn() -> None:
            for body in bodies:
                body()

        return in_turn
    streams = [torch.cuda.Stream(device) for _ in bodies]  # type: ignore[no-untyped-call]

    def run() -> None:
        main = torch.cuda.current_stream(device)
        for stream, body in zip(streams, bodies, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                body()
        for stream in streams:
            main.wait_stream(stream)

    return run


class StaticStep:
    """A step that reads its inputs from buffers, which are filled once per epoch, at the position of a counter."""

    def __init__(self, loader: Loader, step: Step, rate: torch.Tensor) -> None:
        """Allocate the buffers; ``rate`` is the learning rate that the optimizer reads, (1,), on the device."""
        rows = max(loader.steps, WARM_UPS + 2)  # enough rows to try and warm up with; row 0 is valid
        self._loader, self._step, self._rate = loader, step, rate
        self._samples = torch.zeros((rows, loader.batch_size), dtype=torch.int64, device=loader.device)
        self._views = self._samples  # until the first epoch says what a view's row looks like
        self._rates = torch.zeros(rows, dtype=rate.dtype, device=loader.device)
        self._epoch = -1
        self._next = torch.zeros(1, dtype=torch.int64, device=loader.device)

    def fill(self, epoch: int, rates: Iterable[float], *, start: int) -> None:
        """Copy an epoch's ids and learning rates to the device and continue at step ``start``."""
        self._next.fill_(start)
        self._step.epoch.fill_(epoch)
        if epoch == self._epoch:
            return
        addresses, steps = self._loader.with_rows(self._loader.begin(epoch)), self._loader.steps
        views = torch.from_numpy(addresses.rows)
        views = views.view(steps, -1, *views.shape[1:])
        if self._epoch < 0 and self._views is self._samples:
            # Steps that only warm up show the first step's views: a record of zeros is no view.
            many = views[:1].expand(len(self._samples), *views.shape[1:])
            self._views = many.to(self._loader.device, copy=True)
        self._samples[:steps].copy_(torch.from_numpy(addresses.samples).view(steps, -1))
        self._views[:steps].copy_(views)
        self._rates[:steps].copy_(torch.tensor(list(rates), dtype=torch.float64))
        self._epoch = epoch

    def __call__(self) -> None:
        """Take the next step."""
        samples, views = (part.index_select(0, self._next)[0] for part in (self._samples, self._views))
        torch.index_select(self._rates, 0, self._next, out=self._rate)
        self._step(self._loader.batch(samples, views))
        self._next += 1

    def forget(self) -> None:
        """Make the next ``fill`` copy again, even for the same epoch."""
        self._epoch = -1

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Tensors of this object that a step changes."""
        return [self._rate, self._next]


def why_not(run: Run, loader: Loader) -> str:
    """Return the reason why a run's steps cannot be captured, or an empty string."""
    if not can_capture(loader.device):
        return f"a CUDA graph needs a CUDA device, and this run is on '{loader.device.type}'"
    if loader.samples % loader.batch_size:
        return f"the last batch of an epoch is {loader.samples % loader.batch_size} images, others {loader.batch_size}"
    if run.ranks > 1:
        return "several processes share every step"
    if loader.streams:
        return "pictures are read from disk for every step"
    if not loader.in_place:
        return "batches are made on the host and copied at every step"
    if loader.targets is not None and not isinstance(loader.targets, CodedTargets):
        return "the teacher runs at every step"
    if run.own_loss is not None:
        return f"loss '{run.recipe.loss}' may do more at each step than a graph repeats"
    return ""


def device_rate(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.Tensor:
    """Make an optimizer read its learning rate from a tensor on the device, and return the tensor, (1,).

    On CUDA it is float32 and the update becomes one fused kernel. Elsewhere it is float64, which keeps every bit.
    """
    on_gpu = device.type == "cuda"
    rate = torch.zeros(1, dtype=torch.float32 if on_gpu else torch.float64, device=device)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if on_gpu:
            group["fused"] = True
            if "capturable" in group:  # AdamW's; fused, it computes the same without
                group["capturable"] = True
    return rate


@contextmanager
def put_back(state: TrainState, others: Iterable[torch.Tensor]) -> Iterator[None]:
    """Restore, in place, everything that training changes: state, ``others`` and the generators of random numbers.

    The optimizer's buffers that did not exist before become zero; SGD and AdamW treat a zero buffer like a missing one.
    """
    optimizer, device = state.optimizer, state.device
    models = [state.model, *([] if state.averaged is None else [state.averaged])]
    known = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    known += [state.loss, state.correct, *others, *_buffers(optimizer)]
    before = [(tensor, tensor.detach().clone()) for tensor in known]
    generators = random_state(device)
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
        torch.set_rng_state(generators[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(generators[1], device)


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Return the states of the generators of random numbers that a step may use: the host's and the device's."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _buffers(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [
        value
        for buffers in optimizer.state.values()
        for value in buffers.values()
        if isinstance(value, torch.Tensor)
    ]
