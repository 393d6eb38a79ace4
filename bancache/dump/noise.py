"""What a teacher differs from itself by: the scale on which an encoding's loss is small or large."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.encodings.fidelity import TEMPERATURES, divergence
from bancache.errors import UsageError
from bancache.teacher import Teacher
from bancache.views.apply import Renderer

NoiseFloor = dict[str, dict[str, float]]


def noise_floor(
    teacher: Teacher, renderer: Renderer, samples: NDArray[np.int64], views: NDArray[np.int64]
) -> NoiseFloor | None:
    """Return the divergence of a teacher in bfloat16 autocast from the same teacher in float32.

    Who trains or dumps with mixed precision accepts as much, so an encoding that loses less costs nothing visible.

    Args:
        teacher: In whatever precision; it is asked in both.
        renderer: The images.
        samples: Which of them, int64 (B,).
        views: How each is shown, int64 (B,).

    Returns:
        ``kl_mean`` and ``kl_max`` in nats for each measured temperature; None where the net does not run in bfloat16.
    """
    which, ids = (torch.from_numpy(numbers).to(renderer.device) for numbers in (samples, views))
    images = renderer.render(which, ids)
    exact = replace(teacher, precision="float32").logits(images)
    try:
        rounded = replace(teacher, precision="bfloat16").logits(images)
    except (NotImplementedError, RuntimeError, UsageError):
        return None
    if not torch.isfinite(rounded).all():
        return None
    found = {}
    for temperature in TEMPERATURES:
        kl = divergence(exact, torch.softmax(rounded / temperature, dim=1), temperature)
        found[f"{temperature:g}"] = {"kl_mean": float(kl.mean()), "kl_max": float(kl.max())}
    return found
