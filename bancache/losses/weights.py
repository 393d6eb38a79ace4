"""What each loss weighs, labels of mixed views, and root-coded targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class LossWeights:
    """hard · CE(label) + soft · [CE(teacher) − entropy(teacher)] at a temperature, averaged over a batch.

    Attributes:
        hard: Weight of the cross-entropy with the label, always at temperature 1.
        soft: Weight of the cross-entropy with the teacher at ``temperature``.
        temperature: T of the teacher's term.
        divergence: Whether the teacher's entropy is subtracted, which makes its term a KL divergence.
    """

    hard: float
    soft: float
    temperature: float = 1.0
    divergence: bool = False


def loss_weights(loss: str, *, temperature: float, alpha: float) -> LossWeights | None:
    """Return the weights of a loss; None for a loss that is no sum of these two terms (``cwtm``, ``dkpp``).

    >>> loss_weights("kd", temperature=4.0, alpha=0.75)
    LossWeights(hard=0.25, soft=12.0, temperature=4.0, divergence=True)
    """
    if loss == "ban":
        return LossWeights(0.0, 1.0)
    if loss == "ban-l":
        return LossWeights(1.0, 1.0)
    if loss == "kd":
        return LossWeights(1 - alpha, alpha * temperature**2, temperature, divergence=True)
    return None


class MixedLabels(NamedTuple):
    """The labels of views that are mixed with a partner's view: mixup's ``y_a``, ``y_b`` and λ.

    Attributes:
        own: Labels of the views themselves, int64 (B,).
        partner: Labels of the partners' views, int64 (B,).
        lam: λ, the share of ``own``, float32 (B,), 0 to 1.
    """

    own: torch.Tensor
    partner: torch.Tensor
    lam: torch.Tensor

    @property
    def larger(self) -> torch.Tensor:
        """The label with the larger share, int64 (B,); of equal ones, the view's own."""
        return torch.where(self.lam < 0.5, self.partner, self.own)


# int64 (B,), or both labels of mixed views.
Labels = torch.Tensor | MixedLabels


@dataclass(frozen=True)
class Codes:
    """Root-coded targets of all samples in one view: t_i ∝ max(q_i, zero)^(root / T).

    Attributes:
        q: uint8 or int16 (N, C).
        root: r.
        levels: L; powers are taken of ``q / (L - 1)``.
        zero: The value that a stored 0 stands for.
    """

    q: torch.Tensor
    root: int
    levels: int
    zero: float

    def probabilities(self, samples: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the teacher's probabilities at a temperature, float32 (B, C), for samples int64 (B,)."""
        steps = self.q.index_select(0, samples).to(torch.float32).clamp(min=self.zero) / (self.levels - 1)
        weights = steps.pow(self.root / temperature)
        # Hundreds of small weights beside one large one: a float32 sum would lose more than a millionth.
        return weights / weights.sum(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)


# Codes of all samples, or probabilities of the batch: float32 (B, C) with rows that sum to 1.
Targets = Codes | torch.Tensor
