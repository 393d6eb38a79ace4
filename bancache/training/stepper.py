"""How the steps of an epoch are taken: one after another by the host, or as replays of a graph; the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from bancache.errors import UsageError
from bancache.loader import Loader
from bancache.loader.loader import CodedTargets
from bancache.system.progress import Progress
from bancache.training import cuda_graph
from bancache.training.options import GraphMode
from bancache.training.run import Run
from bancache.training.state import TrainState
from bancache.training.step import Step


class Stepper(Protocol):
    """Takes steps."""

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on, each at its learning rate, and yield after each."""


class EagerStepper:
    """The host starts every operation of every step."""

    def __init__(self, loader: Loader, step: Step, optimizer: torch.optim.SGD) -> None:
        """Take steps with the batches of a loader."""
        self._loader, self._step, self._optimizer = loader, step, optimizer
        on_gpu = loader.device.type == "cuda"
        self._rate = cuda_graph.device_rate(optimizer, loader.device) if on_gpu else None

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on."""
        for number, batch in enumerate(self._loader.epoch(epoch, start=start), start):
            if self._rate is not None:
                self._rate.fill_(rates[number])
            else:
                for group in self._optimizer.param_groups:
                    group["lr"] = rates[number]
            self._step(batch)
            yield


class CudaGraphStepper:
    """The host says ``again``."""

    def __init__(self, static: cuda_graph.StaticStep, replay: cuda_graph.Replay) -> None:
        """Replay what was captured of a static step."""
        self._static, self._replay = static, replay

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on."""
        self._static.fill(epoch, rates, start=start)
        for _ in range(start, len(rates)):
            self._replay()
            yield


def make_stepper(
    run: Run,
    loader: Loader,
    step: Step,
    model: nn.Module,
    optimizer: torch.optim.SGD,
    state: TrainState,
    mode: GraphMode,
    progress: Progress,
) -> Stepper:
    """Return the pace of a run: a graph where one is wanted and can be captured.

    Raises:
        UsageError: A graph is demanded, and the step cannot be one.
    """
    reason = "" if mode == "off" else cuda_graph.why_not(run, loader)
    if mode != "off" and not reason:
        try:
            return _graphed(run, loader, step, model, optimizer, state)
        except RuntimeError as error:  # what torch raises for what cannot be captured
            reason = str(error).splitlines()[0]
    if mode == "on":
        raise UsageError(f"the step cannot be one CUDA graph: {reason}", hint="leave out --graph")
    if reason and loader.device.type == "cuda":
        progress.note(f"step by step, not as one CUDA graph: {reason}")
    return EagerStepper(loader, step, optimizer)


def _graphed(
    run: Run,
    loader: Loader,
    step: Step,
    model: nn.Module,
    optimizer: torch.optim.SGD,
    state: TrainState,
) -> CudaGraphStepper:
    """Capture a step in the state in which the run is, and leave it there."""
    static = cuda_graph.StaticStep(loader, step, cuda_graph.device_rate(optimizer, loader.device))
    rates = [run.recipe.learning_rate(n, run.recipe.epochs * loader.steps) for n in range(loader.steps)]
    model.train()
    first = min(state.epoch, run.recipe.epochs - 1)  # a run may be complete but for its checkpoint
    static.fill(first, rates, start=0)
    if isinstance(loader.targets, CodedTargets):
        loader.targets.hold()
    with cuda_graph.put_back(model, optimizer, state, static.tensors):
        replay = cuda_graph.capture(static, loader.device)
    static.forget()
    return CudaGraphStepper(static, replay)
