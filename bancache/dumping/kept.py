"""The decoded pictures of a block of samples, kept while a dump shows all of their views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bancache.system.memory import free_on_host
from bancache.system.ranks import processes_here
from bancache.system.stored import StoredImages

_SHARE = 4  # of the free memory


class KeptBlock(StoredImages):
    """Stored pictures of which those of one run of samples are read once, as far as memory allows.

    Partners of mixed views come from anywhere in the data set, so they are read for each view.
    """

    def __init__(self, images: StoredImages) -> None:
        """Keep nothing yet; later up to a quarter of the memory that is free now for this process."""
        self._images, self._bound = images, free_on_host() // (_SHARE * processes_here())
        self.heights, self.widths, self.channels = images.heights, images.widths, images.channels
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._run = range(0)

    def keep(self, start: int, stop: int) -> int:
        """Keep the samples of a run from now on, the first ones if they do not all fit, and return the last one + 1."""
        sizes = self.heights[start:stop].astype(np.int64) * self.widths[start:stop] * self.channels
        run = range(start, start + int(np.searchsorted(np.cumsum(sizes), self._bound, side="right")))
        if run != self._run:
            self._run = run
            self._kept = {sample: kept for sample, kept in self._kept.items() if sample in run}
        return run.stop

    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of one picture, read once if it is kept."""
        picture = self._kept.get(sample)
        if picture is None:
            picture = self._images.read(sample)
            if sample in self._run:
                self._kept[sample] = picture
        return picture

    def first(self, n: int) -> StoredImages:
        """Return the first ``n`` pictures, none of them kept."""
        return self._images.first(n)

    def close(self) -> None:
        """Close what is open; kept pictures stay."""
        self._images.close()
