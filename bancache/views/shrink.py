"""One picture brought to a size once, by the exact resampler of views."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import is_installed
from bancache.views.pictures import require_reach


def shrink(
    pixels: NDArray[np.uint8], box: tuple[int, int, int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return a box of a picture at a size, ``(H, W, C)``; the bytes are the same on every machine.

    Args:
        pixels: The picture, ``(h, w, C)``.
        box: Top, left, height and width of the part that is shown.
        size: Height and width that it gets.

    Raises:
        UsageError: The box is too large for this size.
    """
    require_reach(*box[2:], size)
    name = "numba_resample" if is_installed() else "resample"
    resample = importlib.import_module(f"bancache.views.{name}").resample
    height, width, channels = pixels.shape
    one = [torch.tensor([value]) for value in (0, height, width)]
    flat = torch.from_numpy(np.array(pixels).reshape(-1))
    boxes, flips = torch.tensor([box]), torch.zeros(1, dtype=torch.long)
    shown: torch.Tensor = resample(flat, *one, channels, boxes, flips, size, "zero")
    found: NDArray[np.uint8] = shown[0].numpy()
    return found
