"""What a distillation loss weighs, and where its targets come from: the words that kernel and twin share."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossWeights:
    """hard · CE(label) + soft · [CE(teacher) − entropy(teacher)] at a temperature, the mean over a batch.

    Attributes:
        hard: Weight of the label's cross-entropy, always at temperature 1.
        soft: Weight of the cross-entropy with the teacher at ``temperature``.
        temperature: T, of the teacher's term alone.
        divergence: Whether the teacher's entropy is subtracted, which makes its term a KL divergence.
    """

    hard: float
    soft: float
    temperature: float = 1.0
    divergence: bool = False


def loss_weights(loss: str, *, temperature: float, alpha: float) -> LossWeights | None:
    """Return the terms of a loss by its name in ``losses``; None for one that is made of something else.

    >>> loss_weights("kd", temperature=4.0, alpha=0.75)
    Terms(hard=0.25, soft=12.0, temperature=4.0, divergence=True)
    """
    if loss == "ban":
        return LossWeights(0.0, 1.0)
    if loss == "ban-l":
        return LossWeights(1.0, 1.0)
    if loss == "kd":
        return LossWeights(1 - alpha, alpha * temperature**2, temperature, divergence=True)
    return None


@dataclass(frozen=True)
class Codes:
    """A slab of root codes, read where a batch's samples are: t_i ∝ max(q_i, zero)^(root / T).

    Attributes:
        q: uint8 or int16 (N, C).
        root: r.
        levels: L; powers are taken of ``q / (L - 1)``.
        zero: What a stored 0 stands for.
    """

    q: torch.Tensor
    root: int
    levels: int
    zero: float


# Codes of all samples, or probabilities of the batch: float32 (B, C) with rows that sum to 1.
Targets = Codes | torch.Tensor
