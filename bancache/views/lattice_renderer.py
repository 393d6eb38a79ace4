"""Crops and flips of images at their own size, by torch alone.

Rows of padded uint8 images are copied, never computed, and the normalization is one subtraction and one multiplication,
which no compiler may fuse.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.system.buffers import BufferPool
from bancache.views.lattice import Lattice
from bancache.views.model_input import Normalization
from bancache.views.renderer import Integers, Renderer

# Float32 output of this size stays in the shared CPU cache between the passes; smaller blocks cost more in calls.
_BLOCK_BYTES = 1 << 23
_MSE_GRADIENT = torch.ops.aten.mse_loss_backward.grad_input
_NO_REDUCTION = 0
_LARGEST_TABLE = 1 << 16  # a view space with more views gets no table of offsets


class LatticeRenderer(Renderer):
    """Renders crops and flips of images.

    A view is a run of bytes of the padded image, or of its mirrored copy, with gaps between its rows. So a batch is
    one ``index_select`` over all byte windows of a view's length, and each view is one memcpy.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        space: Lattice,
        normalization: Normalization,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        """Pad (and mirror) the images, uint8 (N, H, W, C), once, and keep them on the device where batches appear."""
        count, height, width, channels = images.shape
        if space.mode == "reflect" and space.pad >= min(height, width):
            raise UsageError(
                f"views '{space.name}' reflect {space.pad} pixels of images that have {height} x {width}",
                hint=f"use crop{space.pad}-zero or a smaller crop",
            )
        if len(normalization.mean) != channels:
            raise UsageError(f"images have {channels} channels, the normalization {len(normalization.mean)}")
        self.space: Lattice = space
        self.device, self.size, self.normalization = torch.device(device), (height, width), normalization
        self._count, self._height, self._width, self._channels = count, height, width, channels
        self._line = (width + 2 * space.pad) * channels
        self._mean = self._per_pixel(np.asarray(normalization.mean))
        self._scale = self._per_pixel(1.0 / np.asarray(normalization.std))
        self._half_scale = self._scale / 2
        flat = torch.from_numpy(_padded(images, space)).to(self.device).view(-1)
        self._window = (height - 1) * self._line + width * channels
        self._windows = flat.as_strided((flat.numel() - self._window + 1, self._window), (1, 1))
        self._offsets = self._offset(torch.arange(min(space.size, _LARGEST_TABLE), device=self.device))
        self._block = max(1, _BLOCK_BYTES // (4 * height * width * channels))
        self._buffers = BufferPool()

    def rows(self, samples: Integers, view_ids: Integers) -> Integers:
        """Return the view ids, int64 (B,)."""
        return view_ids

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        found = self._lines(self._windows.index_select(0, self._starts(samples, rows)))
        return found.reshape(-1, self._height, self._width, self._channels)

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, float32 (B, C, H, W) in channels_last memory."""
        starts = self._starts(samples, rows)
        shape = (len(starts), self._height, self._width * self._channels)
        if self.device.type != "cpu":
            out = torch.empty(shape, device=self.device)
            out.copy_(self._lines(self._windows.index_select(0, starts)))
            out.flatten(1).sub_(self._mean).mul_(self._scale)
        else:
            out = self._buffers.take(shape, np.float32)
            for first in range(0, len(starts), self._block):
                block = slice(first, first + self._block)
                self._render_block(starts[block], out[block])
        return out.view(-1, self._height, self._width, self._channels).permute(0, 3, 1, 2)

    def _render_block(self, starts: torch.Tensor, out: torch.Tensor) -> None:
        """Fill ``out`` (B, H, W·C) on a CPU.

        torch has one operation of a difference and a product: the gradient of the squared error, 2 · (x − mean) · g.
        With half of the scale as g it gives the bits of both operations, since a factor of two changes no digit.
        """
        windows = self._buffers.take((len(out), self._window), np.uint8)
        torch.index_select(self._windows, 0, starts, out=windows)
        out.copy_(self._lines(windows))
        # One run per image: constants that repeat after a few pixels cost more than the arithmetic.
        images = out.flatten(1)
        _MSE_GRADIENT(self._half_scale, images, self._mean, _NO_REDUCTION, grad_input=images)

    def _lines(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the rows of windows (B, bytes), without the bytes between them, as a view (B, H, W·C)."""
        shape = (len(windows), self._height, self._width * self._channels)
        return windows.as_strided(shape, (self._window, self._line, 1))

    def _starts(self, samples: torch.Tensor, view_ids: torch.Tensor) -> torch.Tensor:
        """Return where views begin in the flat images, int64 (B,)."""
        complete = len(self._offsets) == self.space.size
        offsets = self._offsets.index_select(0, view_ids) if complete else self._offset(view_ids)
        return offsets.add_(samples, alpha=(self._height + 2 * self.space.pad) * self._line)

    def _offset(self, view_ids: torch.Tensor) -> torch.Tensor:
        """Return how many bytes after the beginning of image 0 its views begin."""
        pad, span = self.space.pad, 2 * self.space.pad + 1
        flip, dy, dx = view_ids // (span * span), view_ids // span % span, view_ids % span
        # Mirroring the crop that starts at dx is cropping the mirrored image at 2·pad − dx.
        column = torch.where(flip == 1, 2 * pad - dx, dx)
        top = flip * self._count * (self._height + 2 * pad) + dy
        offset: torch.Tensor = top * self._line + column * self._channels
        return offset

    def golden(self, num_views: int) -> str:
        """Return a hash of a few normalized views."""
        views = self.render(*self.golden_views(num_views, self._count))
        return hashlib.sha256(views.permute(0, 2, 3, 1).cpu().numpy().astype("<f4").tobytes()).hexdigest()

    def _per_pixel(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return one number per channel as float32, repeated for every pixel of an image."""
        repeated = np.tile(values.astype(np.float32), self._height * self._width)
        return torch.from_numpy(repeated).to(self.device)


def _padded(images: NDArray[np.uint8], space: Lattice) -> NDArray[np.uint8]:
    """Return (1 or 2, N, H + 2·pad, W + 2·pad, C): the padded images and, with flips, their mirror images."""
    count, height, width, channels = images.shape
    pad = space.pad
    out = np.empty((1 + space.flip, count, height + 2 * pad, width + 2 * pad, channels), np.uint8)
    edges = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    block = max(1, (1 << 22) // max(1, out[0, 0].nbytes))  # bounds the copies that padding makes
    for start in range(0, count, block):
        part = slice(start, start + block)
        out[0, part] = np.pad(images[part], edges, mode="reflect" if space.mode == "reflect" else "constant")
    if space.flip:
        out[1] = out[0, :, :, ::-1]
    return out
