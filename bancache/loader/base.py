"""Loader: the batches of any epoch, from any step on, as a pure function of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.views import Plan
from bancache.views.apply import Renderer


@dataclass(frozen=True)
class Batch:
    """One training step's input, on the loader's device.

    Attributes:
        images: Normalised views, float32 (B, channels, H, W), channels_last.
        labels: int64 (B,).
        targets: The teacher's probabilities for exactly these views, float32 (B, classes); None without teacher.
        samples: Positions in the data set, int64 (B,), on the CPU.
        views: View numbers, int64 (B,), on the CPU.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None
    samples: NDArray[np.int64]
    views: NDArray[np.int64]


class Targets(Protocol):
    """Gives a teacher's probabilities for views of samples."""

    def begin(self, slot: int, following: int) -> None:
        """Get ready to answer for ``slot``; ``following`` is the one that comes next."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, classes) for samples (B,) whose views in the slot are ``images``."""


class Loader:
    """Renders the batches of a plan; two loaders of the same plan give the same bits.

    Every sample of an epoch shows one slot of its own: its view there is independent of its neighbours'.
    """

    def __init__(
        self,
        renderer: Renderer,
        labels: NDArray[np.int64],
        plan: Plan,
        *,
        batch_size: int,
        targets: Targets | None = None,
    ) -> None:
        """Put images, labels and targets together.

        Args:
            renderer: The images, resident on a device.
            labels: int64 (N,).
            plan: Order and slots of every epoch.
            batch_size: Views a step; a data set smaller than that is one batch.
            targets: The teacher's answers; None to train on labels alone.
        """
        self.plan, self.targets = plan, targets
        self.steps = plan.steps(batch_size)
        self._renderer, self._batch_size = renderer, min(batch_size, plan.samples)
        self._labels = torch.tensor(labels, device=renderer.device)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from step ``start`` on."""
        slot = self.plan.slot(epoch)
        if self.targets is not None:
            self.targets.begin(slot, self.plan.slot(epoch + 1))
        order = self.plan.order(epoch)[: self.steps * self._batch_size]
        views = self._renderer.space.view_ids(order, slot)
        device = self._renderer.device
        on_device = torch.from_numpy(order).to(device), torch.from_numpy(views).to(device)
        for step in range(start, self.steps):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            samples, ids = on_device[0][part], on_device[1][part]
            images = self._renderer.render(samples, ids)
            labels = self._labels.index_select(0, samples)
            targets = None if self.targets is None else self.targets.probabilities(samples, images)
            yield Batch(images, labels, targets, order[part], views[part])
