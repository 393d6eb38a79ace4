"""Loader: the batches of any epoch, from any step on, as a pure function of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.loader.epoch_sampler import Addresses, EpochSampler
from bancache.losses.weights import Codes
from bancache.system.ranks import ALONE, Rank
from bancache.views import Plan
from bancache.views.renderer import Renderer


@dataclass(frozen=True)
class Batch:
    """One training step's input, on the loader's device.

    Attributes:
        images: Normalized views, float32 (B, channels, H, W), channels_last; 16-bit floats if the renderer was
            asked for them.
        labels: int64 (B,).
        targets: The teacher's probabilities for exactly these views, float32 (B, classes); None without teacher.
        samples: Positions in the data set, int64 (B,), on the CPU; empty in a step that a graph replays, of
            whose addresses the host knows nothing.
        views: View numbers, int64 (B,), on the CPU; empty likewise.
        rows: The samples again, where the batch was made.
        codes: The teacher's answers to all samples, for a loss that decodes them itself; ``targets`` is then None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None
    samples: NDArray[np.int64]
    views: NDArray[np.int64]
    rows: torch.Tensor | None = None
    codes: Codes | None = None


_UNKNOWN = np.empty(0, np.int64)


class Targets(Protocol):
    """Gives a teacher's probabilities for views of samples."""

    def begin(self, view_index: int, following: int) -> None:
        """Get ready to answer for ``view index``; ``following`` is the one that comes next."""

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, classes) for samples (B,) whose views in the view index are ``images``."""


@runtime_checkable
class CodedTargets(Targets, Protocol):
    """Targets that can also be decoded by a loss."""

    def codes(self) -> Codes | None:
        """Return the current view index as codes, or None where its encoding is another."""

    def hold(self) -> None:
        """Show every view index at the addresses of the current one from now on."""


class Loader:
    """Renders the batches of a plan; two loaders of the same plan give the same bits.

    Every sample of an epoch shows one view index of its own: its view there is independent of its neighbors'.
    """

    def __init__(
        self,
        renderer: Renderer,
        labels: NDArray[np.int64],
        plan: Plan,
        *,
        batch_size: int,
        targets: Targets | None = None,
        device: torch.device | str | None = None,
        decode: bool = True,
        among: Rank = ALONE,
    ) -> None:
        """Put images, labels and targets together.

        Args:
            renderer: The images, resident on a device.
            labels: int64 (N,).
            plan: Order and views of every epoch.
            batch_size: Views a step; a data set smaller than that is one batch.
            targets: The teacher's answers; None to train on labels alone.
            device: Where batches appear, if elsewhere than where they are made.
            decode: Whether batches have probabilities; else they have codes, where the encoding has such.
            among: Which of several processes this is, each of which gets its share of every batch; all shares one
                after another, by rank, are the batch that a single process gets.

        Raises:
            UsageError: A batch cannot be shared evenly.
        """
        self.plan, self.targets = plan, targets
        self.steps, self.batch_size = plan.steps(batch_size), min(batch_size, plan.samples)
        self.device = renderer.device if device is None else torch.device(device)
        if self.batch_size % among.count:
            raise UsageError(
                f"a batch of {self.batch_size} cannot be shared evenly by {among.count} processes",
                hint=f"give a --batch-size that {among.count} divides",
            )
        share = self.batch_size // among.count
        self._share = slice(among.rank * share, (among.rank + 1) * share)
        self._renderer, self._decode = renderer, decode
        self._labels = torch.tensor(labels, device=renderer.device)
        # A GPU would wait for the next epoch's addresses; a CPU has to find them itself either way.
        self._book = EpochSampler(
            plan, renderer.space, self.steps * self.batch_size, ahead=renderer.device.type == "cuda"
        )

    @property
    def in_place(self) -> bool:
        """Whether batches are made where they are used, so that a graph of that device can make them."""
        return self.device == self._renderer.device

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, or this process's share of each, from step ``start`` on."""
        addresses = self.begin(epoch)
        samples, views = addresses.to(self._renderer.device)
        for step in range(start, self.steps):
            first = step * self.batch_size
            part = slice(first + self._share.start, first + self._share.stop)
            batch = self.batch(samples[part], views[part])
            yield replace(batch, samples=addresses.samples[part], views=addresses.views[part])

    def begin(self, epoch: int) -> Addresses:
        """Make the teacher's answers of an epoch current, and return whom it shows and which views of them."""
        view_index = self.plan.view_index(epoch)
        if self.targets is not None:
            self.targets.begin(view_index, self.plan.view_index(epoch + 1))
        return self._book.epoch(epoch)

    def batch(self, samples: torch.Tensor, views: torch.Tensor) -> Batch:
        """Return the batch at addresses int64 (B,) on the renderer's device, in the epoch that was begun.

        Nothing in it asks the device for a number, so that it can be captured and replayed.
        """
        images = self._renderer.render(samples, views).to(self.device, non_blocking=True)
        labels = self._labels.index_select(0, samples).to(self.device, non_blocking=True)
        codes, targets = self._codes(), None
        if codes is None and self.targets is not None:
            targets = self.targets.probabilities(samples, images).to(self.device, non_blocking=True)
        return Batch(images, labels, targets, _UNKNOWN, _UNKNOWN, samples, codes)

    def _codes(self) -> Codes | None:
        if self._decode or not self.in_place or not isinstance(self.targets, CodedTargets):
            return None
        return self.targets.codes()
