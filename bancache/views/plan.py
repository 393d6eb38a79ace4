"""Plan: in which order an epoch visits the samples, and which view index of theirs it shows.

A pure function of the seed and the epoch: it has no state, so any step of any epoch can be found again
without walking there, by any process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.philox import permutation

_DOMAIN = 0x5AFE_0002


@dataclass(frozen=True)
class Plan:
    """The order of every epoch of one training run.

    Attributes:
        samples: How many samples the training set has.
        num_views: How many views there are to show: a cache's views, or all of a view space.
        seed: 64-bit seed of the orders.

    >>> Plan(samples=5, views=2, seed=0).order(0).tolist()
    [1, 0, 4, 3, 2]
    """

    samples: int
    num_views: int
    seed: int

    def __post_init__(self) -> None:
        if self.samples < 1 or self.num_views < 1:
            raise UsageError(f"a plan needs samples and views, not {self.samples} and {self.num_views}")

    def view_index(self, epoch: int) -> int:
        """Return the view index that every sample shows in an epoch: all of them in turn, then again."""
        return epoch % self.num_views

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return a uniformly random order of the samples, int64 (samples,)."""
        return permutation(self.seed, epoch, self.samples, domain=_DOMAIN)

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has; what is left over for a smaller last one is not shown.

        Every batch has the same size, which BatchNorm and captured graphs want; a set smaller than one batch
        is one batch. Which samples are left out changes with the epoch.
        """
        return max(1, self.samples // batch_size)
