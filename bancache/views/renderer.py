"""Renderer: from the address of a view to the tensor that a model is given.

The dump and the loader render through these classes, so teacher and student get the same bits. No result depends on the
batch, the order or the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace

GOLDEN_IMAGES = 16  # the first images of a data set, whose views are hashed

Integers = NDArray[np.int64]


class Renderer(ABC):
    """Renders any view of pictures that stay on a device, or are read when they are needed.

    Attributes:
        space: The views.
        device: Where the pictures are, and where batches appear.
        size: Height and width of a rendered view in pixels.
        normalization: Of a rendered view.
        streams: Whether the pictures are not in memory, but read where they lie.
    """

    streams: bool = False

    space: ViewSpace
    device: torch.device
    size: tuple[int, int]
    normalization: Normalization

    @abstractmethod
    def rows(self, samples: Integers, view_ids: Integers) -> NDArray[Any]:
        """Return what ``render`` wants to know of each view, integers (B,) or (B, columns), for int64 (B,)."""

    @abstractmethod
    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C); arguments as for ``render``."""

    @abstractmethod
    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, (B, C, H, W) in channels_last memory.

        Args:
            samples: int64 (B,), on the renderer's device.
            rows: What ``rows`` returned for them, on the renderer's device.
        """

    def in_dtype(self, dtype: torch.dtype) -> Renderer:
        """Return a renderer of the same pictures to another dtype; it is this one if it renders to float32 only."""
        return self

    @abstractmethod
    def golden(self, num_views: int) -> str:
        """Return a hash of a few rendered views; a change shows that a library renders other pixels."""

    def to_device(self, samples: Integers, view_ids: Integers) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the arguments of ``render`` for samples and view ids, int64 (B,)."""
        rows = torch.from_numpy(self.rows(samples, view_ids))
        return torch.from_numpy(samples).to(self.device), rows.to(self.device)

    def batches(
        self, samples: Integers, view_ids: Integers, size: int
    ) -> Generator[tuple[torch.Tensor, torch.Tensor, torch.Tensor], None, None]:
        """Yield samples, rows and normalized views, ``size`` of them at a time, in order, for int64 (N,)."""
        numbers, rows = self.to_device(samples, view_ids)
        for start in range(0, len(samples), size):
            part = slice(start, start + size)
            yield numbers[part], rows[part], self.render(numbers[part], rows[part])

    def golden_views(self, num_views: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the arguments of ``render`` for the views that are hashed, of ``count`` samples."""
        samples = np.arange(min(GOLDEN_IMAGES, count))
        return self.to_device(samples, self.space.view_ids(samples, samples % num_views))
