"""A few views of a few random images, for the kernel and for its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from contracts.interpreting import Arrays
from contracts.lattices import lattice
from numpy.typing import NDArray

from bancache.views import Lattice
from bancache.views.model_input import Normalization

BATCH = 6
# Reflected and zero edges, one, three and four channels, sides that are no power of two.
CASES = {
    "crop4-flip": (4, 32, 32, 3),
    "crop2-zero-flip": (5, 9, 13, 1),
    "crop3": (3, 7, 5, 3),
    "flip": (3, 8, 8, 4),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """Images, their view space and normalization, and a batch that contains the extreme views."""

    images: NDArray[np.uint8]
    space: Lattice
    normalization: Normalization
    samples: torch.Tensor
    views: torch.Tensor


def case(name: str) -> Case:
    rng = np.random.default_rng(list(CASES).index(name))
    shape, space = CASES[name], lattice(name)
    mean, std = rng.uniform(100, 140, shape[3]), rng.uniform(50, 70, shape[3])
    views = rng.integers(0, space.size, BATCH)
    views[:2] = 0, space.size - 1
    return Case(
        rng.integers(0, 256, shape, dtype=np.uint8),
        space,
        Normalization(tuple(mean.tolist()), tuple(std.tolist())),
        torch.from_numpy(rng.integers(0, shape[0], BATCH)),
        torch.from_numpy(views),
    )


def bits(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's bytes in the order (B, H, W, C)."""
    rows = tensor.permute(0, 2, 3, 1) if tensor.dtype != torch.uint8 else tensor
    found: NDArray[Any] = rows.contiguous().view(torch.uint8).numpy()
    return found


def run() -> Arrays:
    """Return the kernel's output for every case, in every dtype."""
    from bancache.views.triton_renderer import TritonRenderer

    found: Arrays = {}
    for name in CASES:
        shown = case(name)
        for dtype in DTYPES:
            kernel = TritonRenderer(shown.images, shown.space, shown.normalization, device="cpu", dtype=dtype)
            found[f"{name} {dtype}"] = bits(kernel.render(shown.samples, shown.views))
        found[f"{name} pixels"] = bits(kernel.pixels(shown.samples, shown.views))
        found[f"{name} golden"] = np.array(kernel.golden(1))
    return found
