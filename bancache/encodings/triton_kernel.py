"""Encode rows of logits and measure what that loses, in one GPU kernel: one program a row, each logit read once.

The reference is ``Root.encode`` with ``measuring.all_figures``: some 150 small kernels. The codes are the same bytes. Nothing
may be fused that the reference does not fuse, and the exponential and the rounding are those of CUDA's library, as in torch.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from bancache.encodings.fidelity import MEASURED, SERIES_TO
from bancache.encodings.root import ZERO_STEP, Root
from bancache.system.kernels import called_by_kernels

if find_spec("triton") is not None:  # the kernel's body looks these up here when it is compiled
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice

# Registers hold a row: with 16 warps, 16 numbers of each of a few arrays per thread.
MAX_CLASSES = 8192
# To this a float32 has no digits after the point, so adding and subtracting it rounds half to even.
_ROUNDER = 12582912.0


@called_by_kernels
def raise_to(base, log_base, exponent, REPEAT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ``base`` to the power of ``exponent``, which is ``REPEAT``, or no whole number where that is 0."""
    if REPEAT > 0:
        raised = base
        for _ in tl.static_range(REPEAT - 1):
            raised = raised * base
    else:
        raised = tl.exp(log_base * exponent)
    return raised


@called_by_kernels
def store_figures(  # type: ignore[no-untyped-def]
    out, decoded, log_base, exponent, z, sharper, inside, agree, uniform, SERIES_TO: tl.constexpr
):
    """Write the four figures of a row at one temperature, and return the sum of what the teacher's logits become there."""
    weights = tl.where(inside, tl.exp(z * sharper), 0.0)
    mass, total = tl.sum(decoded, axis=0), tl.sum(weights, axis=0)
    q, p = decoded / mass, weights / total
    # -87.336 is the logarithm of the smallest normal float32.
    delta = tl.maximum(log_base * exponent - tl.log(mass), -87.33654) - (z * sharper - tl.log(total))
    series = ((delta * (1 / 120) + 1 / 24) * delta + 1 / 6) * delta + 0.5
    wrong = q - p
    kl = tl.where(tl.abs(delta) < SERIES_TO, series * delta * delta * p, wrong - p * delta)
    tl.store(out, tl.sum(tl.where(inside, kl, 0.0), axis=0))
    tl.store(out + 1, agree)
    tl.store(out + 2, tl.sum(wrong * wrong, axis=0))
    tl.store(out + 3, tl.maximum(tl.sum(p * p, axis=0) - uniform, 0.0))
    return total


def code_kernel(  # type: ignore[no-untyped-def]  # triton reads the names, not the types
    logits,
    labels,
    codes,
    figures,
    classes,
    inverse,
    top_level,
    zero,
    quarter,
    uniform,
    REPEAT: tl.constexpr,
    LIBRARY: tl.constexpr,
    ROUNDER: tl.constexpr,
    SERIES_TO: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write one row's codes, and its ``WIDTH`` figures in the order of ``all_figures``.

    ``inverse`` is 1/r, ``quarter`` r/4, whose value is ``REPEAT`` if it is whole, else 0; ``uniform`` is 1/C.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < classes
    z = tl.load(logits + row * classes + place, mask=inside, other=float("-inf"))
    finite = tl.abs(z) < float("inf")
    broken = tl.sum(tl.where(inside & (finite == 0), 1.0, 0.0), axis=0)
    top = tl.max(z, axis=0)
    best = tl.min(tl.where(inside & (z == top), place, SIZE), axis=0)
    z = tl.where(inside, z - top, 0.0)

    if LIBRARY:
        steps = libdevice.rint(libdevice.exp(z * inverse) * top_level)
    else:  # under the interpreter
        steps = (tl.exp(z * inverse) * top_level + ROUNDER) - ROUNDER
    tl.store(codes + row * classes + place, steps.to(codes.dtype.element_ty), mask=inside)
    highest = tl.min(tl.where(inside & (steps == top_level), place, SIZE), axis=0)
    agree = tl.where(highest == best, 1.0, 0.0)

    # What is decoded at temperature 4; at 2 and at 1 it is the square.
    base = tl.maximum(steps, zero) / top_level
    log_base = tl.log(base)
    decoded = tl.where(inside, raise_to(base, log_base, quarter, REPEAT), 0.0)
    out = figures + row * WIDTH
    sharper = 0.25
    exponent = quarter
    total = 1.0
    for turn in tl.static_range(3):
        total = store_figures(
            out + 4 * turn, decoded, log_base, exponent, z, sharper, inside, agree, uniform, SERIES_TO
        )
        decoded = decoded * decoded
        sharper, exponent = sharper * 2, exponent * 2
    tl.store(out + 12, tl.where(best == tl.load(labels + row), 1.0, 0.0))
    tl.store(out + 13, 1.0 / total)
    tl.store(out + 14, broken)


def launch(
    encoding: Root, logits: torch.Tensor, labels: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return what ``encode_and_measure`` does, for contiguous logits of up to ``MAX_CLASSES`` classes."""
    rows, classes = logits.shape
    kind = getattr(torch, encoding.fields()[0].dtype)
    codes = torch.empty((rows, classes), dtype=kind, device=logits.device)
    figures = torch.empty((rows, MEASURED), dtype=torch.float32, device=logits.device)
    size = 1 << max(5, (classes - 1).bit_length())
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _compiled()[(rows,)](
            *(logits, labels, codes, figures, classes),
            # torch divides by a number on a GPU by multiplying with its reciprocal in float32.
            float(np.float32(1) / np.float32(encoding.root)),
            *(float(encoding.levels - 1), ZERO_STEP, encoding.root / 4, 1 / classes),
            REPEAT=encoding.root // 4 if encoding.root % 4 == 0 else 0,
            LIBRARY=logits.is_cuda,
            ROUNDER=_ROUNDER,
            SERIES_TO=SERIES_TO,
            WIDTH=MEASURED,
            SIZE=size,
            num_warps=warps_for(size),
            # A sum of a product is two roundings, as in the reference.
            **({"enable_fp_fusion": False} if logits.is_cuda else {}),
        )
    return {"q": codes}, figures


def warps_for(size: int) -> int:
    """Return how many warps share a row of ``size`` numbers: at most 16 numbers per thread.

    >>> [warps_for(size) for size in (32, 128, 1024, 8192)]
    [1, 1, 2, 16]
    """
    return max(1, size // 512)


@cache
def _compiled() -> Any:
    """Return the kernel for triton, which compiles it at the first rows of each encoding."""
    return triton.jit(code_kernel)
