"""Views from their records by Triton's kernels: the bits of ``RecordRenderer``, and nothing waits for the device."""

from __future__ import annotations

import copy

import torch

from bancache.errors import UsageError
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures
from bancache.views.record import FLIP, TOP, WIDTH
from bancache.views.record_renderer import RecordRenderer
from bancache.views.resample import most_taps
from bancache.views.space import ViewSpace
from bancache.views.triton_operations import apply, finish
from bancache.views.triton_resample import resample


class TritonRecordRenderer(RecordRenderer):
    """Renders views from their records on a CUDA device, or under Triton's interpreter, also as 16-bit floats."""

    def __init__(
        self,
        pictures: Pictures,
        space: ViewSpace,
        normalization: Normalization,
        *,
        size: tuple[int, int],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Move the pictures, gray or in color, to the device. ``dtype`` is float32, or float16 or bfloat16, rounded from it."""
        super().__init__(pictures, space, normalization, size=size, device=device)
        if pictures.channels not in (1, 3):
            raise UsageError(f"the kernels take 1 or 3 channels, not {pictures.channels}")
        self.dtype = dtype
        sides = int(pictures.sizes.heights.max()), int(pictures.sizes.widths.max())
        self._most = most_taps(sides[0], size[0]), most_taps(sides[1], size[1])
        # On the host: a number that a kernel takes is no tensor.
        self._numbers = self._mean.tolist(), self._scale.tolist()

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        return self._finished(samples, rows, torch.uint8).permute(0, 2, 3, 1)

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, ``dtype`` (B, C, H, W) in channels_last memory."""
        return self._finished(samples, rows, self.dtype)

    def in_dtype(self, dtype: torch.dtype) -> TritonRecordRenderer:
        """Return a renderer of the same pictures, which both share, to another dtype."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def _finished(self, samples: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        layout = self.space.layout
        views = self._changed(samples, rows[:, : layout.own])
        erased, mixing = slice(layout.erased.start, layout.fill + 1), None
        if layout.mixed:
            partners = rows[:, layout.partners]
            shown = self._changed(rows[:, layout.partner].to(torch.int64), partners)
            mixing = shown, partners[:, erased], rows[:, layout.share : layout.cut.stop]
        return finish(views, rows[:, erased], mixing, *self._numbers, dtype)

    def _changed(self, samples: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return views after their operations, from the own part of their records."""
        offsets, heights, widths = (
            part.index_select(0, samples) for part in (self._offsets, self._heights, self._widths)
        )
        box, flips = own[:, TOP : WIDTH + 1], own[:, FLIP]
        views = resample(
            self._flat,
            offsets,
            heights,
            widths,
            self.pictures.channels,
            box,
            flips,
            self.size,
            self.space.mode,
            most=self._most,
        )
        return apply(views, own[:, self.space.layout.operations])
