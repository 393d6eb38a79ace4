"""Any view of pictures of any size, at any size, from its record, by torch alone.

A view is cut from the source picture and resampled, mirrored, changed by its operations, erased, and mixed with its
partner's view, in 8-bit integers all the way. Only then is it normalized. numba and Triton give the same bits.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.system.buffers import BufferPool, tensor_of
from bancache.system.resident import resident
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures
from bancache.views.record import FLIP, TOP, WIDTH
from bancache.views.renderer import Integers, Renderer
from bancache.views.resample import resample
from bancache.views.space import ViewSpace
from bancache.views.torch_operations import apply, erase, mix

Tensors = tuple[torch.Tensor, ...]


class RecordRenderer(Renderer):
    """Renders views from their records."""

    def __init__(
        self,
        pictures: Pictures,
        space: ViewSpace,
        normalization: Normalization,
        *,
        size: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Keep the pictures on the device where batches appear; on a CPU without a copy."""
        if len(normalization.mean) != pictures.channels:
            raise UsageError(
                f"images have {pictures.channels} channels, the normalization {len(normalization.mean)}"
            )
        self.space, self.device, self.size = space, torch.device(device), size
        self.normalization = normalization
        self._buffers = BufferPool()
        self._keep(pictures)
        # float32 as in the other renderers: the scale is rounded once, after the division.
        self._mean = torch.from_numpy(np.asarray(normalization.mean).astype(np.float32)).to(self.device)
        scale = (1.0 / np.asarray(normalization.std)).astype(np.float32)
        self._scale = torch.from_numpy(scale).to(self.device)

    def in_dtype(self, dtype: torch.dtype) -> RecordRenderer:
        """Return this renderer: torch renders to float32 only."""
        return self

    def over(self, pictures: Pictures, tensors: Tensors | None = None) -> Self:
        """Return a renderer of other pictures, none of them larger, that shares everything else with this one.

        ``tensors`` are their pixels, offsets, heights and widths where they are on the device already.
        """
        other = copy.copy(self)
        other._keep(pictures, tensors)
        return other

    def _keep(self, pictures: Pictures, tensors: Tensors | None = None) -> None:
        sizes = pictures.sizes
        self.pictures = pictures
        self._flat, self._offsets, self._heights, self._widths = tensors or (
            resident(pictures.flat, self.device),
            *(tensor_of(part).to(self.device) for part in (pictures.offsets, sizes.heights, sizes.widths)),
        )

    def rows(self, samples: Integers, view_ids: Integers) -> NDArray[np.int32]:
        """Return the records of views, int32 (B, columns)."""
        return self.space.records(samples, view_ids, self.pictures.sizes)

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        layout = self.space.layout
        views = self._own(samples, rows[:, : layout.own])
        if not layout.mixed:
            return views
        partners = self._own(rows[:, layout.partner].to(torch.int64), rows[:, layout.partners])
        return mix(views, partners, rows[:, layout.share], rows[:, layout.cut])

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, float32 (B, C, H, W) in channels_last memory."""
        out = self.buffer(len(samples))
        self.fill(samples, rows, out, threads=torch.get_num_threads())
        return out.permute(0, 3, 1, 2)

    def buffer(self, count: int) -> torch.Tensor:
        """Return memory for so many views, float32 (B, H, W, C), on the device."""
        shape = count, *self.size, self.pictures.channels
        if self.device.type == "cpu":
            return self._buffers.take(shape, np.float32)
        return torch.empty(shape, device=self.device)

    def fill(self, samples: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, *, threads: int) -> None:
        """Write normalized views to ``out``, float32 (B, H, W, C); ``threads`` is for loops that have threads of their own."""
        out.copy_(self.pixels(samples, rows)).sub_(self._mean).mul_(self._scale)

    def golden(self, num_views: int) -> str:
        """Return a hash of a few views before normalization."""
        return hash_of(self.pixels(*self.golden_views(num_views, len(self.pictures))))

    def _own(self, samples: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return views before they are mixed, from the own part of their records."""
        layout = self.space.layout
        offsets, heights, widths = (
            part.index_select(0, samples) for part in (self._offsets, self._heights, self._widths)
        )
        views = resample(
            self._flat,
            offsets,
            heights,
            widths,
            self.pictures.channels,
            own[:, TOP : WIDTH + 1],
            own[:, FLIP],
            self.size,
            self.space.mode,
        )
        views = apply(views, own[:, layout.operations])
        return erase(views, own[:, layout.erased], own[:, layout.fill])


def hash_of(views: torch.Tensor) -> str:
    """Return the sha256 of views before normalization, uint8 (B, H, W, C)."""
    return hashlib.sha256(views.contiguous().cpu().numpy().tobytes()).hexdigest()
