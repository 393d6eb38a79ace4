"""Finding which view a view index shows of each sample: by numpy, and by numba once so many were found that it pays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bancache.system import numba as compiled
from bancache.system.numba import Accelerator
from bancache.views.space import ViewSpace


class ViewFinder:
    """The views of a space, found one view index of some samples at a time."""

    def __init__(self, space: ViewSpace, *, accelerator: Accelerator = "auto") -> None:
        """Look views up in ``space``.

        Args:
            space: The views.
            accelerator: ``numba`` or ``none``; by default numba, where it is installed, once so many were found that it
                pays. It never changes a bit.

        Raises:
            UsageError: numba is not installed.
        """
        self._space, self._found, self._accelerator = space, 0, accelerator
        if accelerator == "numba":
            compiled.require()

    def ids(self, samples: NDArray[np.int64], view_index: int) -> NDArray[np.int64]:
        """Return the view of each sample in one view index, int64 (N,); arguments as ``ViewSpace.view_ids``."""
        if self._accelerator == "auto" and self._found >= compiled.WORTH_AFTER_VIEWS:
            self._accelerator = "numba" if compiled.is_installed() else "none"
        self._found += len(samples)
        if self._accelerator != "numba":
            return self._space.view_ids(samples, view_index)
        from bancache.views.walk import view_ids

        return view_ids(self._space, samples, view_index)
