"""The noise floor: how much a teacher's own rounding changes its outputs, to compare an encoding's loss with."""

from __future__ import annotations

from dataclasses import replace

import torch

from bancache.encodings.fidelity import TEMPERATURES, divergence
from bancache.errors import UsageError
from bancache.models.teacher import Teacher

NoiseFloor = dict[str, dict[str, float]]


def noise_floor(teacher: Teacher, images: torch.Tensor, logits: torch.Tensor) -> NoiseFloor | None:
    """Return the divergence of a teacher in bfloat16 autocast from the same teacher in float32.

    Mixed-precision training accepts this much, so an encoding that loses less has no visible cost.

    Args:
        teacher: In either precision; it is run in the other one.
        images: Normalized views, float32 (B, C, H, W).
        logits: The teacher's outputs for them, float32 (B, classes).

    Returns:
        ``kl_mean`` and ``kl_max`` in nats for each measured temperature; None if the model does not run in both
        precisions.
    """
    is_exact = teacher.precision == "float32"
    try:
        other = replace(teacher, precision="bfloat16" if is_exact else "float32").logits(images)
    except (NotImplementedError, RuntimeError, UsageError):
        return None
    exact, rounded = (logits, other) if is_exact else (other, logits)
    if not torch.isfinite(rounded).all():
        return None
    floor = {}
    for temperature in TEMPERATURES:
        kl = divergence(exact, torch.softmax(rounded / temperature, dim=1), temperature)
        floor[f"{temperature:g}"] = {"kl_mean": float(kl.mean()), "kl_max": float(kl.max())}
    return floor
