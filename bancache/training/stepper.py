"""Takes the steps of an epoch, either eagerly or by replaying a CUDA graph. Both give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bancache.errors import UsageError
from bancache.loader import Loader
from bancache.loader.loader import CodedTargets
from bancache.system.progress import Progress
from bancache.training import cuda_graph
from bancache.training.options import GraphMode
from bancache.training.step import Step


class Stepper(Protocol):
    """Takes the steps of an epoch."""

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps from ``start`` on and yield after each; ``rates`` has one learning rate per step."""


class EagerStepper:
    """Launches every operation of every step from the host."""

    def __init__(self, loader: Loader, step: Step) -> None:
        self._loader, self._step = loader, step
        on_gpu = loader.device.type == "cuda"
        self._rate = cuda_graph.device_rate(step.state.optimizer, loader.device) if on_gpu else None

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on."""
        for index, batch in enumerate(self._loader.epoch(epoch, start=start), start):
            if self._rate is not None:
                self._rate.fill_(rates[index])
            else:
                for group in self._step.state.optimizer.param_groups:
                    group["lr"] = rates[index]
            self._step(batch)
            yield


class CudaGraphStepper:
    """Replays one captured step per call."""

    def __init__(self, static: cuda_graph.StaticStep, replay: cuda_graph.Replay) -> None:
        self._static, self._replay = static, replay

    def epoch(self, epoch: int, rates: list[float], *, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on."""
        self._static.fill(epoch, rates, start=start)
        for _ in range(start, len(rates)):
            self._replay()
            yield


def make_stepper(loader: Loader, step: Step, mode: GraphMode, progress: Progress) -> Stepper:
    """Return a ``CudaGraphStepper`` where ``mode`` allows it and the step can be captured, else an ``EagerStepper``.

    Raises:
        UsageError: ``mode`` is ``on`` and the step cannot be captured.
    """
    reason = "" if mode == "off" else cuda_graph.why_not(step.run, loader)
    if mode != "off" and not reason:
        try:
            return _captured(loader, step)
        except RuntimeError as error:  # torch raises it when an operation cannot be captured
            reason = str(error).splitlines()[0]
    if mode == "on":
        raise UsageError(f"the step cannot be one CUDA graph: {reason}", hint="leave out --graph")
    if reason and loader.device.type == "cuda":
        progress.note(f"step by step, not as one CUDA graph: {reason}")
    return EagerStepper(loader, step)


def _captured(loader: Loader, step: Step) -> CudaGraphStepper:
    """Capture a step and leave the run's state unchanged."""
    state, recipe = step.state, step.run.recipe
    static = cuda_graph.StaticStep(loader, step, cuda_graph.device_rate(state.optimizer, loader.device))
    state.model.train()
    first = min(state.epoch, recipe.epochs - 1)  # all epochs may be done, with only the checkpoint missing
    static.fill(first, recipe.learning_rates(0, loader.steps), start=0)
    if isinstance(loader.targets, CodedTargets):
        loader.targets.hold()
    with cuda_graph.put_back(state, static.tensors):
        replay = cuda_graph.capture(static, loader.device)
    static.forget()
    return CudaGraphStepper(static, replay)
