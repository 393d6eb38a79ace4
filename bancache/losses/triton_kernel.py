"""Gather, decode, two cross-entropies and their gradient in one GPU kernel: one program and one pass per row.

It replaces seven small kernels that decode a batch and some eighteen for loss and gradient. The reference and the
fallback is ``losses/reference.py``.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from bancache.losses.weights import Codes, Labels, LossWeights, MixedLabels, Targets
from bancache.system.kernels import called_by_kernels

if find_spec("triton") is not None:  # the kernel's body looks ``tl`` up here when it is compiled
    import triton
    import triton.language as tl

# Registers hold a row and its gradient: with 8 warps, 32 numbers of each per thread.
MAX_CLASSES = 8192


@called_by_kernels
def probabilities(code, inside, zero, unit, power, EXPONENT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return what a row of codes means; their exponent is ``power`` where ``EXPONENT`` is 0."""
    base = tl.maximum(code.to(tl.float32), zero) * unit
    if EXPONENT > 0:
        raised = base
        for _ in tl.static_range(EXPONENT - 1):
            raised = raised * base
    else:
        raised = tl.exp2(tl.log2(base) * power)
    raised = tl.where(inside, raised, 0.0)
    return raised / tl.sum(raised, axis=0)


@called_by_kernels
def softmax(z, e, total, inverse, COOL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a row's softmax at temperature T, and the logarithm of what it divides by; ``e`` and ``total`` are those at 1."""
    if COOL:
        q, log_total = e / total, tl.log(total)
    else:
        warm = tl.exp(z * inverse)
        warmth = tl.sum(warm, axis=0)
        q, log_total = warm / warmth, tl.log(warmth)
    return q, log_total


@called_by_kernels
def distance(t, z, mass, log_total, inverse, DIVERGENCE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a row's cross-entropy with its targets at temperature T, or its divergence from them."""
    found = mass * log_total - tl.sum(t * z, axis=0) * inverse
    if DIVERGENCE:
        found += tl.sum(tl.where(t > 0, t * tl.log(tl.where(t > 0, t, 1.0)), 0.0), axis=0)
    return found


def loss_kernel(  # type: ignore[no-untyped-def]  # triton reads the names, not the types
    logits,
    targets,
    samples,
    labels,
    partners,
    lam,
    losses,
    gradient,
    classes,
    hard,
    soft,
    inverse,
    share,
    zero,
    unit,
    power,
    ROOT: tl.constexpr,
    EXPONENT: tl.constexpr,
    DIVERGENCE: tl.constexpr,
    MIXED: tl.constexpr,
    COOL: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write one row's loss and ``share`` times its gradient; ``inverse`` is 1/T, and ``COOL`` means T = 1.

    ``partners`` and ``lam`` are read where labels are ``MIXED``.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    inside = place < classes
    z = tl.load(logits + row * classes + place, mask=inside, other=float("-inf"))
    top = tl.max(z, axis=0)
    z = z - top
    label = tl.load(labels + row)
    if ROOT:  # codes of all samples
        code = tl.load(targets + tl.load(samples + row) * classes + place, mask=inside, other=0)
        t = probabilities(code, inside, zero, unit, power, EXPONENT)
    else:
        t = tl.load(targets + row * classes + place, mask=inside, other=0.0)
    e = tl.exp(z)
    total = tl.sum(e, axis=0)
    mass = tl.sum(t, axis=0)
    shown = tl.where(inside, z, 0.0)
    if MIXED:  # two masks of the row would not fit in registers
        partner, part = tl.load(partners + row), tl.load(lam + row)
        own = tl.load(logits + row * classes + label) - top
        hit = part * own + (1.0 - part) * (tl.load(logits + row * classes + partner) - top)
    else:
        hit = tl.sum(tl.where(place == label, shown, 0.0), axis=0)
    q, log_total = softmax(z, e, total, inverse, COOL)
    teacher = distance(t, shown, mass, log_total, inverse, DIVERGENCE)
    tl.store(losses + row, hard * (tl.log(total) - hit) + soft * teacher)
    if MIXED:
        known = tl.where(place == label, part, 0.0) + tl.where(place == partner, 1.0 - part, 0.0)
    else:
        known = tl.where(place == label, 1.0, 0.0)
    slope = hard * (e / total - known) + soft * inverse * (q * mass - t)
    tl.store(gradient + row * classes + place, slope * share, mask=inside)


def launch(
    logits: torch.Tensor, targets: Targets, samples: torch.Tensor, labels: Labels, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows' losses (B,) and the gradient of their mean (B, C), both float32; arguments as ``distil``.

    ``logits`` are contiguous, with up to ``MAX_CLASSES`` classes.
    """
    batch, classes = logits.shape
    losses = torch.empty(batch, dtype=torch.float32, device=logits.device)
    gradient = torch.empty_like(logits)
    codes = targets if isinstance(targets, Codes) else None
    mixed = isinstance(labels, MixedLabels)
    own, partners, lam = labels if isinstance(labels, MixedLabels) else (labels, labels, losses)
    power = codes.root / weights.temperature if codes else 1.0
    size = 1 << max(5, (classes - 1).bit_length())
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _compiled()[(batch,)](
            *(logits, codes.q if codes else targets, samples, own, partners, lam, losses, gradient, classes),
            # Floats: triton compiles another kernel for some integers, such as 1.
            *(float(weights.hard), float(weights.soft), 1 / weights.temperature, 1 / batch),
            *((codes.zero, 1.0 / (codes.levels - 1), power) if codes else (0.0, 1.0, 1.0)),
            ROOT=codes is not None,
            EXPONENT=int(power) if power in range(1, 17) else 0,
            DIVERGENCE=weights.divergence,
            MIXED=mixed,
            COOL=weights.temperature == 1,
            SIZE=size,
            num_warps=warps_for(size),
        )
    return losses, gradient


def warps_for(size: int) -> int:
    """Return how many warps share a row of ``size`` numbers: at most 32 numbers per thread.

    >>> [warps_for(size) for size in (32, 128, 1024, 8192)]
    [1, 1, 4, 8]
    """
    return min(8, max(1, size // 256))


@cache
def _compiled() -> Any:
    """Return the kernel for triton, which compiles it at the first batch of each kind of targets."""
    return triton.jit(loss_kernel)
