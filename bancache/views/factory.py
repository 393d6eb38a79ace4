"""Which renderer serves a device, and how much of its memory the images take."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.views.model_input import Normalization
from bancache.views.renderer import Renderer
from bancache.views.space import ViewSpace


def choose_renderer(
    images: NDArray[np.uint8],
    space: ViewSpace,
    normalization: Normalization,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Renderer:
    """Return the fastest renderer for a device, with the images in the device's memory.

    Only the Triton kernel gives other dtypes than float32; both renderers give the same bits.
    """
    device = torch.device(device)
    if device.type == "cuda" and find_spec("triton") is not None:
        # Importing triton takes long, and a CPU has no use for it.
        from bancache.views.triton_renderer import TritonRenderer, unavailable

        if unavailable(device, images.shape[3]) is None:
            return TritonRenderer(images, space, normalization, device=device, dtype=dtype)
    return Renderer(images, space, normalization, device=device)


def resident_bytes(images: NDArray[np.uint8], space: ViewSpace, device: torch.device) -> int:
    """Return how many bytes of device memory ``choose_renderer`` needs for the images.

    The kernel keeps the images as they are, torch keeps them padded and, with flips, also mirrored.
    """
    count, height, width, channels = images.shape
    if device.type == "cuda" and find_spec("triton") is not None:
        return int(images.nbytes)
    return int((1 + space.flip) * count * (height + 2 * space.pad) * (width + 2 * space.pad) * channels)
