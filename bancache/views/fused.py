"""Rendering in one pass over memory with numba, where it is installed: the bits of ``Renderer``'s own way.

    out = (float32(pixel) − mean) · (1 / std)

Without fast-math, and with a product after a difference, there is nothing that a compiler could contract or
reorder (``tests/views/test_fused.py``). It takes about two thirds of the time of torch's three passes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from bancache.errors import UsageError

# Importing numba and loading or compiling the loop cost one to three seconds, and a view saves about half a
# microsecond: runs that are shorter than this never notice numba, those that are longer get it back.
WORTH_AFTER_VIEWS = 500_000

Kernel = Callable[..., None]


def is_installed() -> bool:
    """Whether numba can be imported, asked without importing it."""
    return importlib.util.find_spec("numba") is not None


@cache
def render_kernel() -> Kernel:
    """Return ``kernel(flat, starts, line, mean, scale, out)``, compiled once a process and kept on disk by numba.

    It fills ``out`` float32 (B, H, W·C) with the rows of views that start at ``starts`` int64 (B,) in the bytes
    ``flat`` uint8, ``line`` bytes from row to row; ``mean`` and ``scale`` are float32 (W·C,).

    Raises:
        UsageError: numba is not installed.
    """
    if not is_installed():
        raise UsageError("numba is not installed", hint="pip install 'bancache[fast]'")
    import numba

    kernel: Kernel = numba.njit(cache=True, nogil=True, fastmath=False)(_render)
    return kernel


def _render(flat: Any, starts: Any, line: int, mean: Any, scale: Any, out: Any) -> None:
    for view in range(starts.size):
        for y in range(out.shape[1]):
            start = starts[view] + y * line
            # Slices tell the compiler that no index is negative, so that it makes vectors of the inner loop.
            pixels, row = flat[start : start + out.shape[2]], out[view, y]
            for x in range(out.shape[2]):
                row[x] = (np.float32(pixels[x]) - mean[x]) * scale[x]
