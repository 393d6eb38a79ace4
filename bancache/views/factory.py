"""Which renderer shows the views: the kernel where it runs, else its twin; the bits are the same."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.views.renderer import Normalization, Renderer
from bancache.views.space import ViewSpace


def choose_renderer(
    images: NDArray[np.uint8],
    space: ViewSpace,
    normalization: Normalization,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Renderer:
    """Return the images, resident on a device, behind the fastest renderer that there is for it.

    Args:
        images: uint8 (N, H, W, C).
        space: The views to show.
        normalization: One mean and std for each channel.
        device: Where the images stay and where batches appear.
        dtype: What the kernel rounds to; its twin always gives float32.

    Raises:
        UsageError: The padding or the number of channels does not fit the images.
    """
    where = torch.device(device)
    if where.type == "cuda" and find_spec("triton") is not None:
        # Here, because importing triton takes long and a CPU has no use for it.
        from bancache.views.triton_renderer import KernelRenderer, unable

        if unable(where, images.shape[3]) is None:
            return KernelRenderer(images, space, normalization, device=where, dtype=dtype)
    return Renderer(images, space, normalization, device=where)


def resident_bytes(images: NDArray[np.uint8], space: ViewSpace, device: torch.device) -> int:
    """Return how much memory of the device ``choose_renderer`` fills: the kernel's images are neither padded nor mirrored."""
    count, height, width, channels = images.shape
    if device.type == "cuda" and find_spec("triton") is not None:
        return int(images.nbytes)
    return int((1 + space.flip) * count * (height + 2 * space.pad) * (width + 2 * space.pad) * channels)
