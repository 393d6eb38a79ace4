"""The losses of born-again networks as pure functions of logits, teacher's probabilities and labels.

Shapes everywhere: ``logits`` float (B, C), ``targets`` float32 (B, C) with rows that sum to 1, ``labels``
int64 (B,). Each returns a scalar, the mean over the batch in nats unless it says otherwise.

"Workshop" is Furlanello et al., "Born Again Neural Networks", NIPS 2017 workshop on meta-learning; "2018"
is the ICML version; "Hinton" is Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.philox import philox, split_seed

LossName = Literal["ban-l", "ban", "kd", "cwtm", "dkpp"]
LOSSES: tuple[str, ...] = get_args(LossName)

_DOMAIN = 0x5AFE_0003
_PRODUCTS = 1 << 16


class _Known(torch.autograd.Function):
    """A value whose gradient with respect to the logits was computed along with it."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the value and keep the gradient."""
        ctx.save_for_backward(gradient.to(logits.dtype))
        return value

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Scale it.

        Raises:
            UsageError: A graph of the gradient itself is wanted (``create_graph``), which there is not.
        """
        if torch.is_grad_enabled():
            raise UsageError(
                "the losses bring their gradient along and cannot be differentiated twice",
                hint="write the loss with torch.nn.functional.log_softmax for that",
            )
        return ctx.saved_tensors[0] * upstream, None, None


def cross_entropies(
    logits: torch.Tensor,
    *,
    targets: torch.Tensor | None = None,
    soft_weight: float = 1.0,
    labels: torch.Tensor | None = None,
    hard_weights: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Return Σ_b [s · CE(targets_b, softmax z_b) + h_b · CE(labels_b, softmax z_b)], a scalar.

    Its gradient, (s·Σ_i t_i + h_b) · softmax(z_b) − s·t_b − h_b·onehot(y_b), is computed with it, in the memory of
    the one log-softmax, so that autograd neither keeps nor walks a graph: about half the time on a CPU
    (benchmarks/loss.py). Half-precision logits are taken as float32. It cannot be differentiated twice.

    Args:
        logits: The student's.
        targets: The teacher's probabilities; they are constants.
        soft_weight: s.
        labels: Classes.
        hard_weights: h, one number or one a row, (B,).

    Raises:
        UsageError: The targets want a gradient, which they do not get.
    """
    if targets is not None and targets.requires_grad:
        raise UsageError("the teacher's probabilities are constants here", hint="give targets.detach()")
    differentiable = logits.requires_grad and torch.is_grad_enabled()
    with torch.no_grad():
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_q = F.log_softmax(logits, dim=1, dtype=dtype)
        value, mass = log_q.new_zeros(()), log_q.new_zeros(())
        if targets is not None:
            targets = targets.to(dtype)
            value, mass = soft_weight * _inner(log_q, targets), targets.sum(dim=1, keepdim=True) * soft_weight
        if labels is not None:
            place = labels[:, None]
            hard = torch.as_tensor(hard_weights, dtype=dtype, device=log_q.device).expand(len(log_q))[:, None]
            value, mass = value + (log_q.gather(1, place) * hard).sum(), mass + hard
        if not differentiable:
            return -value
        gradient = log_q.exp_().mul_(mass)
        if targets is not None:
            gradient.sub_(targets, alpha=soft_weight)
        if labels is not None:
            gradient.scatter_add_(1, place, -hard)
    known: torch.Tensor = _Known.apply(logits, -value, gradient)
    return known


def _inner(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the sum of products of two (B, C) tensors; on a CPU by parts, whose products need no new pages."""
    step = max(1, _PRODUCTS // one.shape[1]) if one.device.type == "cpu" else len(one)
    total: torch.Tensor = (one[:step] * other[:step]).sum()
    for start in range(step, len(one), step):
        total += (one[start : start + step] * other[start : start + step]).sum()
    return total


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with a distribution: - Σ_i t_i log softmax(z)_i."""
    return cross_entropies(logits, targets=targets, soft_weight=1 / len(logits))


def ban(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the teacher's term alone, the default of 2018."""
    return soft_cross_entropy(logits, targets)


def ban_l(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return label cross-entropy + cross-entropy with the teacher, weights 1 and 1 (workshop, eq. 2 and 3)."""
    each = 1 / len(logits)
    return cross_entropies(logits, targets=targets, soft_weight=each, labels=labels, hard_weights=each)


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
    weight = alpha * temperature**2
    entropy = torch.special.xlogy(targets, targets).sum() / len(targets)  # of the teacher: no gradient
    soft = cross_entropies(logits / temperature, targets=targets, soft_weight=weight / len(logits))
    hard = cross_entropies(logits, labels=labels, hard_weights=(1 - alpha) / len(logits))
    return soft.add(entropy, alpha=weight).add(hard)


def cwtm(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return label cross-entropy, samples weighted by the teacher's confidence (2018).

    A sample's weight is its largest target over the sum of the batch's, so the weights sum to 1.
    """
    confidence = targets.amax(dim=1)
    return cross_entropies(logits, labels=labels, hard_weights=confidence / confidence.sum())


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
