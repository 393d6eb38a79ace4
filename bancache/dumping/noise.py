"""What a teacher differs from itself by: the scale on which an encoding's loss is small or large."""

from __future__ import annotations

from dataclasses import replace

import torch

from bancache.encodings.fidelity import TEMPERATURES, divergence
from bancache.errors import UsageError
from bancache.models.teacher import Teacher

NoiseFloor = dict[str, dict[str, float]]


def noise_floor(teacher: Teacher, images: torch.Tensor, answers: torch.Tensor) -> NoiseFloor | None:
    """Return the divergence of a teacher in bfloat16 autocast from the same teacher in float32.

    Who trains or dumps with mixed precision accepts as much, so an encoding that loses less costs nothing visible.

    Args:
        teacher: In whatever precision; it is asked in the other.
        images: Normalized views, float32 (B, C, H, W).
        answers: What it said of them, logits float32 (B, classes).

    Returns:
        ``kl_mean`` and ``kl_max`` in nats for each measured temperature; None where the net does not run in both.
    """
    exactly = teacher.precision == "float32"
    try:
        other = replace(teacher, precision="bfloat16" if exactly else "float32").logits(images)
    except (NotImplementedError, RuntimeError, UsageError):
        return None
    exact, rounded = (answers, other) if exactly else (other, answers)
    if not torch.isfinite(rounded).all():
        return None
    found = {}
    for temperature in TEMPERATURES:
        kl = divergence(exact, torch.softmax(rounded / temperature, dim=1), temperature)
        found[f"{temperature:g}"] = {"kl_mean": float(kl.mean()), "kl_max": float(kl.max())}
    return found
