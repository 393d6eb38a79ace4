"""The losses of born-again networks: pure functions of logits, probabilities and labels, and the fused loss.

``logits`` are the student's, float (B, C); half precision is computed in float32. ``targets`` are the teacher's
probabilities, float32 (B, C), constants whose rows sum to 1. ``labels`` are int64 (B,), or ``MixedLabels``, whose
cross-entropy is λ · CE(own) + (1 − λ) · CE(partner). Each function returns a scalar in nats, the mean over the batch
unless it says otherwise. It can be differentiated once, and raises UsageError for targets that require a gradient.

"Workshop" is Furlanello et al., "Born Again Neural Networks", NIPS 2017 workshop on meta-learning; "2018" is the
ICML version; "Hinton" is Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bancache.losses.reference import differentiable_loss
from bancache.losses.weights import Labels, LossWeights
from bancache.losses.weights import MixedLabels as MixedLabels
from bancache.philox import philox, split_seed

PERMUTATION_DOMAIN = 0x5AFE_0003


def cross_entropy(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return the cross-entropy with the labels alone, mixed or not."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not isinstance(labels, MixedLabels):
        return F.cross_entropy(logits, labels)
    own, partner = (
        F.cross_entropy(logits, label, reduction="none") for label in (labels.own, labels.partner)
    )
    return torch.lerp(partner, own, labels.lam.to(own.dtype)).mean()


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with a distribution: − Σ_i t_i log softmax(z)_i."""
    return differentiable_loss(logits, targets, None, LossWeights(0.0, 1.0))


def ban(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with the teacher alone (the default of 2018)."""
    return soft_cross_entropy(logits, targets)


def ban_l(logits: torch.Tensor, targets: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return label cross-entropy + cross-entropy with the teacher, weights 1 and 1 (workshop, eq. 2 and 3)."""
    return differentiable_loss(logits, targets, labels, LossWeights(1.0, 1.0))


def kd(
    logits: torch.Tensor, targets: torch.Tensor, labels: Labels, *, temperature: float, alpha: float
) -> torch.Tensor:
    """Return (1 − α) · CE(label) + α · T² · KL(teacher ‖ student) at temperature T (Hinton, section 2).

    Args:
        logits: The student's, float (B, C).
        targets: The teacher's probabilities at ``temperature``, float32 (B, C).
        labels: int64 (B,), or both labels of mixed views.
        temperature: T.
        alpha: α, the weight of the teacher's term.
    """
    weights = LossWeights(1 - alpha, alpha * temperature**2, temperature, divergence=True)
    return differentiable_loss(logits, targets, labels, weights)


def cwtm(logits: torch.Tensor, targets: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return label cross-entropy, samples weighted by the teacher's confidence (2018).

    A sample's weight is its largest target divided by the sum of these over the batch: the weights sum to 1. The teacher's
    confidence in a mixed view weighs both of its labels.
    """
    confidence = targets.amax(dim=1)
    return differentiable_loss(logits, targets, labels, LossWeights(1.0, 0.0), confidence / confidence.mean())


def dkpp(logits: torch.Tensor, targets: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy with the teacher, its dark knowledge permuted, without labels (2018).

    Args:
        logits: The student's, float (B, C).
        targets: The teacher's probabilities, float32 (B, C). The largest of a row keeps its class; the others are
            put in the order of ``keys``; of a mixed view, so is what the teacher gives to the other picture's class.
        keys: int64 (B, C), all different within a row, as ``permutation_keys`` returns them.
    """
    return soft_cross_entropy(logits, permute_all_but_largest(targets, keys))


def permute_all_but_largest(targets: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return each row with its largest value in place and the others in the order of their keys; all (B, C)."""
    best = targets.argmax(dim=1, keepdim=True)
    # Both sorts put the largest value last, so it gets its own class again.
    last = keys.scatter(1, best, torch.iinfo(keys.dtype).max)
    classes = torch.ones_like(keys).scatter(1, best, 0).argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(targets).scatter(1, classes, targets.gather(1, last.argsort(dim=1)))


def permutation_keys(seed: int, epoch: int, samples: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return int64 (B, classes) keys for ``dkpp``, a pure function of seed, epoch, sample and class."""
    index = np.arange(classes, dtype=np.uint64)
    sample = samples.astype(np.uint64)[:, None]
    word = philox(split_seed(seed), index[None], sample, epoch, PERMUTATION_DOMAIN)[0]
    return ((word << np.uint64(24)) | index).astype(np.int64)
