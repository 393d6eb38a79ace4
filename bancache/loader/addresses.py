"""Which samples an epoch shows in which order, and which view of each; the next epoch's found beside this one's work."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bancache import compiled
from bancache.compiled import Accelerator
from bancache.views import Plan, ViewSpace


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


class AddressBook:
    """Finds the addresses of any epoch, and, if asked to, those of the next one ahead.

    Without numba they take tens of milliseconds for fifty thousand images, as long as a GPU's whole epoch of a small net.
    """

    def __init__(
        self, plan: Plan, space: ViewSpace, shown: int, *, ahead: bool, accelerator: Accelerator = "auto"
    ) -> None:
        """Look up the first ``shown`` samples of each epoch of a plan in a view space.

        Args:
            plan: Which samples an epoch shows, and which slot of theirs.
            space: The views.
            shown: How many of an epoch's samples.
            ahead: Whether to find the next epoch's while one is at work.
            accelerator: ``numba`` or ``none``; by default numba, where it is installed, once so many were found that it
                pays. It never changes a bit.

        Raises:
            UsageError: numba is not installed.
        """
        self._plan, self._space, self._shown = plan, space, shown
        self._found, self._accelerator = 0, accelerator
        if accelerator == "numba":
            compiled.require()
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
        order, slot = self._plan.order(epoch)[: self._shown], self._plan.slot(epoch)
        if self._accelerator == "auto" and self._found >= compiled.WORTH_AFTER_VIEWS:
            self._accelerator = "numba" if compiled.is_installed() else "none"
        self._found += len(order)
        if self._accelerator != "numba":
            return Addresses(order, self._space.view_ids(order, slot))
        from bancache.views.walk import view_ids

        return Addresses(order, view_ids(self._space, order, slot))
