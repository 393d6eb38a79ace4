"""Loss and gradient in torch: behind every public loss, and the fallback and reference of the Triton kernel.

The gradient of a cross-entropy is known in closed form. It is computed with the loss, in the memory of the
log-softmax, so autograd neither keeps nor walks a graph: about half the time on a CPU (benchmarks/loss.py).
"""

from __future__ import annotations

from typing import Any

import torch

from bancache.errors import UsageError
from bancache.losses.weights import Labels, LossWeights, MixedLabels

_BLOCK = 1 << 16  # products that stay in a core's own cache


def loss_and_gradient(
    logits: torch.Tensor,
    targets: torch.Tensor,
    labels: Labels | None,
    weights: LossWeights,
    row_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each row (B,), and the gradient of their mean (B, C).

    Both are float32, or float64 for float64 logits. With s and h the weights of the soft and the hard term, the
    gradient of row b is s/T · (Σ_i t_i · softmax(z/T) − t) + h_b · (softmax(z) − onehot(y_b)): z are the logits
    (B, C), t the targets (B, C) at temperature T, y the labels, which may be None where ``weights.hard`` is 0, and
    ``row_weights`` (B,) multiply ``weights.hard``. Of mixed labels, onehot(y_b) is λ · onehot(own) +
    (1 − λ) · onehot(partner).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype)
    temperature, share = weights.temperature, 1 / len(logits)
    log_p = torch.log_softmax(logits, dim=1)
    log_q = log_p if temperature == 1 else torch.log_softmax(logits / temperature, dim=1)
    losses, mass = log_p.new_zeros(len(logits)), log_p.new_zeros(len(logits))
    if weights.soft:
        losses -= weights.soft * _row_products(log_q, targets)
        mass += targets.sum(dim=1).mul_(weights.soft / temperature)
    if weights.soft and weights.divergence:
        losses += weights.soft * torch.special.xlogy(targets, targets).sum(dim=1)
    hard = torch.full_like(losses, weights.hard) if row_weights is None else weights.hard * row_weights
    parts = _parts(labels, hard)
    for label, part in parts:
        losses -= part * log_p.gather(1, label[:, None])[:, 0]
    if temperature == 1:
        gradient = log_p.exp_().mul_((mass + hard).mul_(share)[:, None])
    else:
        gradient = log_q.exp_().mul_(mass[:, None]).addcmul_(log_p.exp_(), hard[:, None]).mul_(share)
    if weights.soft:
        gradient.sub_(targets, alpha=weights.soft / temperature * share)
    for label, part in parts:
        gradient.scatter_add_(1, label[:, None], (part * -share)[:, None])
    return losses, gradient


def _parts(labels: Labels | None, hard: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return labels (B,) and the weights of their cross-entropies (B,), whose sum is ``hard`` (B,)."""
    if labels is None:
        return []
    if not isinstance(labels, MixedLabels):
        return [(labels, hard)]
    lam = labels.lam.to(hard.dtype)
    return [(labels.own, hard * lam), (labels.partner, hard * (1 - lam))]


def differentiable_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    labels: Labels | None,
    weights: LossWeights,
    row_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of the rows' losses, a scalar with a gradient; targets that require one are a UsageError."""
    if targets.requires_grad:
        raise UsageError("the teacher's probabilities require a gradient", hint="pass targets.detach()")
    with torch.no_grad():
        losses, gradient = loss_and_gradient(logits, targets, labels, weights, row_weights)
    return attach_gradient(logits, losses.mean(), gradient)


def attach_gradient(logits: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return ``loss``, a scalar, with ``gradient`` (B, C) as its gradient with respect to ``logits``."""
    attached: torch.Tensor = _WithGradient.apply(logits, loss, gradient)
    return attached


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient with respect to the logits is known already."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient.to(logits.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph wants a second derivative
            raise UsageError(
                "the losses cannot be differentiated twice",
                hint="write the loss with torch.nn.functional.log_softmax instead",
            )
        return ctx.saved_tensors[0] * upstream, None, None


def _row_products(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return Σ_i a_bi · b_bi (B,) of two (B, C) tensors; on a CPU in blocks."""
    rows = max(1, _BLOCK // one.shape[1]) if one.device.type == "cpu" else max(1, len(one))
    blocks = zip(torch.split(one, rows), torch.split(other, rows), strict=True)
    # Autocast would halve the precision of a vecdot.
    return torch.cat([(a * b).sum(dim=1) for a, b in blocks])
