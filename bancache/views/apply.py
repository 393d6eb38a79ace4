"""From (sample, view) to the pixels a network is given, with the same bits for teacher and student.

Both the dump and the loader render through this file, and nothing in it depends on the batch, the order
or the device: rows of padded uint8 images are copied, never computed, and the normalisation is one
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
from bancache.views.space import ViewSpace

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from pixels and what they are divided by, one number a channel, in 0..255.

    Applied as ``(x - mean) * (1 / std)`` in float32: a sum after a product could be contracted to a fused
    multiply-add and would then differ between devices; a product after a sum cannot.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise UsageError(f"mean {self.mean} and std {self.std} do not normalise anything")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; Python's floats survive JSON exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """Read what ``to_dict`` wrote."""
        return cls(tuple(values["mean"]), tuple(values["std"]))


class Renderer:
    """Images resident on a device, ready to show any of their views.

    A view's rows are runs of bytes of the padded image, or of its mirrored copy, so a batch is one
    ``index_select`` over all byte windows of a row's length: no arithmetic touches a pixel before the
    normalisation, and a row is one memcpy.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        space: ViewSpace,
        normalisation: Normalisation,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        """Pad (and mirror) the images once.

        Args:
            images: uint8 (N, H, W, C).
            space: The views to show; reflection needs H and W larger than ``pad``.
            normalisation: One mean and std for each channel.
            device: Where the images stay and where batches appear.

        Raises:
            UsageError: The padding or the number of channels does not fit the images.
        """
        count, height, width, channels = images.shape
        if space.mode == "reflect" and space.pad >= min(height, width):
            raise UsageError(
                f"views '{space.name}' reflect {space.pad} pixels of images that have {height} x {width}",
                hint=f"use crop{space.pad}-zero or a smaller crop",
            )
        if len(normalisation.mean) != channels:
            raise UsageError(f"images have {channels} channels, the normalisation {len(normalisation.mean)}")
        self.space = space
        self.device = torch.device(device)
        self._count, self._height, self._width, self._channels = count, height, width, channels
        self._mean = self._constants(np.asarray(normalisation.mean))
        self._scale = self._constants(1.0 / np.asarray(normalisation.std))
        flat = torch.from_numpy(_padded(images, space)).to(self.device).view(-1)
        row = width * channels
        self._windows = flat.as_strided((flat.numel() - row + 1, row), (1, 1))

    def pixels(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return views as they are, uint8 (B, H, W, C).

        Args:
            samples: int64 (B,), positions in the data set, on the renderer's device.
            ids: int64 (B,), view numbers of the space.
        """
        pad, span = self.space.pad, 2 * self.space.pad + 1
        flip, dy, dx = ids // (span * span), ids // span % span, ids % span
        # Mirroring the crop that starts at dx is cropping the mirrored image at 2·pad − dx.
        column = torch.where(flip == 1, 2 * pad - dx, dx)
        top = (flip * self._count + samples) * (self._height + 2 * pad) + dy
        lines = top[:, None] + torch.arange(self._height, device=self.device)  # (B, H)
        starts = (lines * (self._width + 2 * pad) + column[:, None]) * self._channels
        rows = self._windows.index_select(0, starts.view(-1))
        return rows.view(-1, self._height, self._width, self._channels)

    def render(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return normalised views, float32 (B, C, H, W) in channels_last memory; arguments as ``pixels``."""
        pixels = self.pixels(samples, ids)
        rows = pixels.view(-1, self._width * self._channels)
        out = torch.empty(rows.shape, dtype=torch.float32, device=self.device)
        # On a CPU, in blocks that stay in its cache between the three passes: several times faster.
        block = max(1, _BLOCK_BYTES // (4 * rows.shape[1])) if self.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), block):
            part = out[start : start + block]
            part.copy_(rows[start : start + block]).sub_(self._mean).mul_(self._scale)
        return out.view(pixels.shape).permute(0, 3, 1, 2)

    def golden(self, slots: int) -> str:
        """Return a hash of a few rendered views, which changes when any library renders them otherwise."""
        samples = np.arange(min(16, self._count))
        ids = self.space.view_ids(samples, samples % slots)
        views = self.render(self._indices(samples), self._indices(ids))
        return hashlib.sha256(views.permute(0, 2, 3, 1).cpu().numpy().astype("<f4").tobytes()).hexdigest()

    def _indices(self, values: ArrayLike) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(self.device)

    def _constants(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return one number a channel as float32, repeated for every pixel of a row."""
        return torch.from_numpy(np.tile(values.astype(np.float32), self._width)).to(self.device)


def _padded(images: NDArray[np.uint8], space: ViewSpace) -> NDArray[np.uint8]:
    """Return (1 or 2, N, H + 2·pad, W + 2·pad, C): the padded images and, with flips, their mirror images."""
    count, height, width, channels = images.shape
    pad = space.pad
    out = np.empty((1 + space.flip, count, height + 2 * pad, width + 2 * pad, channels), np.uint8)
    edges = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    block = max(1, (1 << 25) // max(1, out[0, 0].nbytes))  # bounds the copies that padding makes
    for start in range(0, count, block):
        part = slice(start, start + block)
        out[0, part] = np.pad(images[part], edges, mode="reflect" if space.mode == "reflect" else "constant")
    if space.flip:
        out[1] = out[0, :, :, ::-1]
    return out
