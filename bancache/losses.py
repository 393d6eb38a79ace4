"""The losses of born-again networks as pure functions of logits, teacher's probabilities and labels.

Shapes everywhere: ``logits`` float (B, C), ``targets`` float32 (B, C) with rows that sum to 1, ``labels``
int64 (B,). Each returns a scalar, the mean over the batch in nats unless it says otherwise.

"Workshop" is Furlanello et al., "Born Again Neural Networks", NIPS 2017 workshop on meta-learning; "2018"
is the ICML version; "Hinton" is Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.philox import philox, split_seed

LossName = Literal["ban-l", "ban", "kd", "cwtm", "dkpp"]
LOSSES: tuple[str, ...] = get_args(LossName)

_DOMAIN = 0x5AFE_0003


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with a distribution: - Σ_i t_i log softmax(z)_i."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def ban(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the teacher's term alone, the default of 2018."""
    return soft_cross_entropy(logits, targets)


def ban_l(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return label cross-entropy + cross-entropy with the teacher, weights 1 and 1 (workshop, eq. 2 and 3)."""
    return F.cross_entropy(logits, labels) + soft_cross_entropy(logits, targets)


def kd(
    logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """Return (1 - α)·CE(label) + α·T²·KL(teacher ‖ student) at temperature T (Hinton, section 2).

    Args:
        logits: The student's.
        targets: The teacher's probabilities at ``temperature``.
        labels: Classes.
        temperature: T.
        alpha: α, the weight of the teacher's term.
    """
    log_q = F.log_softmax(logits / temperature, dim=1)
    divergence = F.kl_div(log_q, targets, reduction="batchmean")
    return (1 - alpha) * F.cross_entropy(logits, labels) + alpha * temperature**2 * divergence


def cwtm(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return label cross-entropy, samples weighted by the teacher's confidence (2018).

    A sample's weight is its largest target over the sum of the batch's, so the weights sum to 1.
    """
    confidence = targets.amax(dim=1)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * (confidence / confidence.sum())).sum()


def dkpp(logits: torch.Tensor, targets: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy with targets whose dark knowledge is permuted, without labels (2018).

    Args:
        logits: The student's.
        targets: The teacher's probabilities; a row's largest entry stays where it is, the others are put in
            a random order.
        keys: int64 (B, C), all different within a row: the order, as ``permutation_keys`` gives it.
    """
    return soft_cross_entropy(logits, permute_all_but_largest(targets, keys))


def permute_all_but_largest(targets: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return each row with its largest entry in place and the others in the order of their keys."""
    best = targets.argmax(dim=1, keepdim=True)
    # The largest is sorted to the end on both sides, so it meets its own place again.
    last = keys.scatter(1, best, torch.iinfo(keys.dtype).max)
    places = torch.ones_like(keys).scatter(1, best, 0).argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(targets).scatter(1, places, targets.gather(1, last.argsort(dim=1)))


def permutation_keys(seed: int, epoch: int, samples: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return int64 (B, classes) keys for ``dkpp``, a pure function of seed, epoch, sample and class."""
    index = np.arange(classes, dtype=np.uint64)
    sample = samples.astype(np.uint64)[:, None]
    word = philox(split_seed(seed), index[None], sample, epoch, _DOMAIN)[0]
    return ((word << np.uint64(24)) | index).astype(np.int64)


def check_loss(name: str, *, temperature: float, alpha: float) -> None:
    """Refuse a loss that does not exist or settings that it does not have.

    Raises:
        UsageError: Saying which.
    """
    if name not in LOSSES:
        raise UsageError(f"no loss is called '{name}'", hint=f"use one of {', '.join(LOSSES)}")
    if not temperature > 0 or not 0 <= alpha <= 1:
        raise UsageError(f"temperature {temperature} and alpha {alpha}: T is above 0, alpha in 0..1")
    if name != "kd" and temperature != 1:
        raise UsageError(
            f"loss '{name}' is defined at temperature 1, not {temperature:g}", hint="use --loss kd"
        )
