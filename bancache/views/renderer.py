"""From (sample, view) to the pixels a network is given, with the same bits for teacher and student.

Both the dump and the loader render through this file, and nothing in it depends on the batch, the order
or the device: rows of padded uint8 images are copied, never computed, and the normalization is one
subtraction and one multiplication that no compiler may fuse into something else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bancache.errors import UsageError
from bancache.system import numba as compiled
from bancache.system.buffers import BufferPool
from bancache.system.numba import Accelerator
from bancache.views.space import ViewSpace

# A block's floats stay in the cache that cores share between the passes; smaller ones cost more calls than they save.
_BLOCK_BYTES = 1 << 23
_TWICE_DIFFERENCE_TIMES = torch.ops.aten.mse_loss_backward.grad_input
_NO_REDUCTION = 0
_OFFSETS = 1 << 16  # a view space with more views than this has no table of where they begin


@dataclass(frozen=True)
class Normalization:
    """What is subtracted from pixels and what they are divided by, one number a channel, in 0..255.

    Applied as ``(x - mean) * (1 / std)`` in float32: a sum after a product could be contracted to a fused
    multiply-add and would then differ between devices; a product after a sum cannot.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise UsageError(f"mean {self.mean} and std {self.std} do not normalize anything")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; Python's floats survive JSON exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """Read what ``to_dict`` wrote."""
        return cls(tuple(values["mean"]), tuple(values["std"]))


class Renderer:
    """Images resident on a device, ready to show any of their views.

    A view is a run of bytes of the padded image, or of its mirrored copy, with gaps between its rows, so a batch
    is one ``index_select`` over all byte windows of a view's length: no arithmetic touches a pixel before the
    normalization, and a view is one memcpy.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        space: ViewSpace,
        normalization: Normalization,
        *,
        device: torch.device | str = "cpu",
        accelerator: Accelerator = "auto",
    ) -> None:
        """Pad (and mirror) the images once.

        Args:
            images: uint8 (N, H, W, C).
            space: The views to show; reflection needs H and W larger than ``pad``.
            normalization: One mean and std for each channel.
            device: Where the images stay and where batches appear.
            accelerator: ``numba`` or ``none``; by default numba, where it is installed, once so many views have
                been rendered that it pays. It never changes a bit.

        Raises:
            UsageError: The padding or the number of channels does not fit the images; or numba is not installed.
        """
        count, height, width, channels = images.shape
        if space.mode == "reflect" and space.pad >= min(height, width):
            raise UsageError(
                f"views '{space.name}' reflect {space.pad} pixels of images that have {height} x {width}",
                hint=f"use crop{space.pad}-zero or a smaller crop",
            )
        if len(normalization.mean) != channels:
            raise UsageError(f"images have {channels} channels, the normalization {len(normalization.mean)}")
        self.space = space
        self.device = torch.device(device)
        self._count, self._height, self._width, self._channels = count, height, width, channels
        self._line = (width + 2 * space.pad) * channels
        self._mean = self._constants(np.asarray(normalization.mean))
        self._scale = self._constants(1.0 / np.asarray(normalization.std))
        self._half_scale = self._scale / 2
        self._flat = torch.from_numpy(_padded(images, space)).to(self.device).view(-1)
        self._window = (height - 1) * self._line + width * channels
        self._windows = self._flat.as_strided((self._flat.numel() - self._window + 1, self._window), (1, 1))
        known = min(space.size, _OFFSETS)
        self._offsets = self._offset(torch.arange(known, device=self.device))
        self._block = max(1, _BLOCK_BYTES // (4 * height * width * channels))
        self._memory, self._rendered, self._accelerator = BufferPool(), 0, accelerator
        if accelerator == "numba":
            compiled.require()

    def pixels(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return views as they are, uint8 (B, H, W, C).

        Args:
            samples: int64 (B,), positions in the data set, on the renderer's device.
            ids: int64 (B,), view numbers of the space.
        """
        rows = self._rows(self._windows.index_select(0, self._starts(samples, ids)))
        return rows.reshape(-1, self._height, self._width, self._channels)

    def render(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return normalized views, float32 (B, C, H, W) in channels_last memory; arguments as ``pixels``."""
        starts = self._starts(samples, ids)
        shape = (len(starts), self._height, self._width * self._channels)
        if self.device.type != "cpu":
            out = torch.empty(shape, device=self.device)
            out.copy_(self._rows(self._windows.index_select(0, starts)))
            out.flatten(1).sub_(self._mean).mul_(self._scale)
        else:
            out = self._memory.take(shape, np.float32)
            self._render_on_cpu(starts, out)
        return out.view(-1, self._height, self._width, self._channels).permute(0, 3, 1, 2)

    @property
    def accelerated(self) -> bool:
        """Whether the next batch is rendered by numba; decided here and nowhere else."""
        if self._accelerator == "auto" and self._rendered >= compiled.WORTH_AFTER_VIEWS:
            self._accelerator = "numba" if self.device.type == "cpu" and compiled.is_installed() else "none"
        return self._accelerator == "numba" and self.device.type == "cpu"

    def _render_on_cpu(self, starts: torch.Tensor, out: torch.Tensor) -> None:
        """Fill ``out`` (B, H, W·C), in one pass or in blocks that stay in the cache between passes."""
        if self.accelerated:
            from bancache.views.fused import render

            row = self._width * self._channels
            arrays = (part.numpy() for part in (self._mean[:row], self._scale[:row], out))
            render(self._flat.numpy(), starts.numpy(), self._line, *arrays)
            return
        self._rendered += len(starts)
        block, pieces = self._block, [(starts, out)]
        if len(out) > block:
            pieces = list(zip(torch.split(starts, block), torch.split(out, block), strict=True))
        for some, part in pieces:
            windows = self._memory.take((len(part), self._window), np.uint8)
            torch.index_select(self._windows, 0, some, out=windows)
            part.copy_(self._rows(windows))
            self._normalize(part)

    def _normalize(self, pixels: torch.Tensor) -> None:
        """Take the mean from pixels (B, H, W·C) and multiply by the scale, in place and in one pass over them.

        torch has one operation of a difference and a product: the gradient of the squared error, 2 · (x − mean) · g.
        With half of the scale as g it rounds as the two do, since a factor of two leaves every digit as it is.
        """
        # As one run an image: constants that repeat after a few pixels cost more than the arithmetic.
        images = pixels.flatten(1)
        _TWICE_DIFFERENCE_TIMES(self._half_scale, images, self._mean, _NO_REDUCTION, grad_input=images)

    def _rows(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the rows in windows (B, bytes), without what lies between them: a view (B, H, W·C)."""
        shape = (len(windows), self._height, self._width * self._channels)
        return windows.as_strided(shape, (self._window, self._line, 1))

    def _starts(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return where views begin in the flat images, int64 (B,)."""
        table = self._offsets
        known = len(table) == self.space.size
        offsets: torch.Tensor = table.index_select(0, ids) if known else self._offset(ids)
        return offsets.add_(samples, alpha=(self._height + 2 * self.space.pad) * self._line)

    def _offset(self, ids: torch.Tensor) -> torch.Tensor:
        """Return how far from the beginning of image 0 its views begin, in bytes."""
        pad, span = self.space.pad, 2 * self.space.pad + 1
        flip, dy, dx = ids // (span * span), ids // span % span, ids % span
        # Mirroring the crop that starts at dx is cropping the mirrored image at 2·pad − dx.
        column = torch.where(flip == 1, 2 * pad - dx, dx)
        top = flip * self._count * (self._height + 2 * pad) + dy
        offset: torch.Tensor = top * self._line + column * self._channels
        return offset

    def golden(self, num_views: int) -> str:
        """Return a hash of a few rendered views, which changes when any library renders them otherwise."""
        samples = np.arange(min(16, self._count))
        ids = self.space.view_ids(samples, samples % num_views)
        views = self.render(self._indices(samples), self._indices(ids))
        return hashlib.sha256(views.permute(0, 2, 3, 1).cpu().numpy().astype("<f4").tobytes()).hexdigest()

    def _indices(self, values: ArrayLike) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(self.device)

    def _constants(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return one number a channel as float32, repeated for every pixel of an image."""
        every = np.tile(values.astype(np.float32), self._height * self._width)
        return torch.from_numpy(every).to(self.device)


def _padded(images: NDArray[np.uint8], space: ViewSpace) -> NDArray[np.uint8]:
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
