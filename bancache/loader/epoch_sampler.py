"""Which samples an epoch shows in which order, and which view of each; the next epoch's found beside this one's work."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import Accelerator
from bancache.views import Plan, ViewSpace
from bancache.views.finder import ViewFinder


@dataclass(frozen=True)
class Addresses:
    """All batches of an epoch, one after another.

    Attributes:
        samples: Positions in the data set, int64 (steps · B,).
        views: Their view numbers, int64 (steps · B,).
    """

    samples: NDArray[np.int64]
    views: NDArray[np.int64]

    def to(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples and views on a device."""
        return torch.from_numpy(self.samples).to(device), torch.from_numpy(self.views).to(device)


class EpochSampler:
    """Finds the addresses of any epoch, and, if asked to, those of the next one ahead.

    Without numba they take tens of milliseconds for fifty thousand images, as long as a GPU's whole epoch of a small net.
    """

    def __init__(
        self, plan: Plan, space: ViewSpace, shown: int, *, ahead: bool, accelerator: Accelerator = "auto"
    ) -> None:
        """Look up the first ``shown`` samples of each epoch of a plan in a view space.

        Args:
            plan: Which samples an epoch shows, and which view index of theirs.
            space: The views.
            shown: How many of an epoch's samples.
            ahead: Whether to find the next epoch's while one is at work.
            accelerator: As ``ViewFinder`` has it.

        Raises:
            UsageError: numba is not installed.
        """
        self._plan, self._shown = plan, shown
        self._finder = ViewFinder(space, accelerator=accelerator)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bancache-addresses") if ahead else None
        self._ahead: tuple[int, Future[Addresses]] | None = None

    def epoch(self, epoch: int) -> Addresses:
        """Return the addresses of an epoch."""
        if self._thread is None:
            return self._find(epoch)
        expected, future = self._ahead or (epoch, self._thread.submit(self._find, epoch))
        found = future.result()
        if expected != epoch:
            found = self._find(epoch)
        self._ahead = epoch + 1, self._thread.submit(self._find, epoch + 1)
        return found

    def _find(self, epoch: int) -> Addresses:
        order = self._plan.order(epoch)[: self._shown]
        return Addresses(order, self._finder.ids(order, self._plan.view_index(epoch)))
