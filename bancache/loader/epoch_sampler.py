"""EpochSampler: the order of an epoch's samples, and the view that each of them shows.

Both are pure functions of seed and epoch, without state. So any process can start at any step of any epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.philox import permutation
from bancache.views import ViewSpace

_DOMAIN, _BLOCKS = 0x5AFE_0002, 0x5AFE_000C
_TOGETHER = 8  # blocks that are mixed


@dataclass(frozen=True)
class Addresses:
    """The (sample, view) pairs of an epoch, batch after batch.

    Attributes:
        samples: Positions in the data set, int64 (steps · B,).
        views: View ids, int64 (steps · B,).
        rows: What the renderer wants to know of each view, integers (steps · B,) or (steps · B, columns); None if that is
            to be found batch by batch.
    """

    samples: NDArray[np.int64]
    views: NDArray[np.int64]
    rows: NDArray[Any] | None = None


@dataclass(frozen=True)
class EpochSampler:
    """The order and the views of every epoch of a training run.

    Attributes:
        num_samples: Size of the training set.
        num_views: How many views to show in turn: those of a cache, or all of a view space.
        seed: 64-bit seed of the orders.
        block: Samples that are read as one run, for pictures on disks or in object stores; 0 for any order.

    >>> EpochSampler(num_samples=5, num_views=2, seed=0).order(0).tolist()
    [1, 0, 4, 3, 2]
    >>> EpochSampler(num_samples=40, num_views=2, seed=0, block=2).order(0)[:16].tolist()
    [31, 1, 30, 32, 15, 18, 0, 10, 20, 14, 11, 33, 21, 29, 19, 28]
    """

    num_samples: int
    num_views: int
    seed: int
    block: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.num_views < 1:
            raise UsageError(
                f"an epoch needs samples and views, not {self.num_samples} samples and {self.num_views} views"
            )
        if self.block < 0:
            raise UsageError(
                f"blocks of {self.block} samples cannot be shuffled", hint="give --shuffle-block 0 or more"
            )

    def view_index(self, epoch: int) -> int:
        """Return the view index of an epoch, the same for every sample: all view indices in turn, then again."""
        return epoch % self.num_views

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return a random order of the samples, int64 (num_samples,).

        It is uniform without blocks. With blocks of consecutive samples, the blocks are in a uniformly random order, and the
        samples of each eight of them that follow one another are mixed: an epoch reads eight runs at a time.
        """
        order = permutation(self.seed, epoch, self.num_samples, domain=_DOMAIN)
        if not self.block:
            return order
        blocks = permutation(self.seed, epoch, -(-self.num_samples // self.block), domain=_BLOCKS)
        group = np.empty_like(blocks)
        group[blocks] = np.arange(len(blocks)) // _TOGETHER
        # Sorted by group alone, so that inside a group the order stays uniform.
        return order[np.argsort(group[order // self.block], kind="stable")]

    def steps(self, batch_size: int, *, keep_last: bool = False) -> int:
        """Return the number of batches of an epoch, all of one size, unless ``keep_last`` adds a smaller one.

        Captured graphs need batches of one size, so the samples that remain after the last full batch are left out by
        default; these are others in each epoch. A data set smaller than a batch is one batch.
        """
        return max(1, -(-self.num_samples // batch_size) if keep_last else self.num_samples // batch_size)

    def addresses(self, epoch: int, space: ViewSpace, count: int) -> Addresses:
        """Return the first ``count`` pairs of an epoch.

        On a CPU they take tens of milliseconds for 50,000 samples, as long as a GPU's whole epoch of a small model.
        """
        samples = self.order(epoch)[:count]
        return Addresses(samples, space.view_ids(samples, self.view_index(epoch)))
