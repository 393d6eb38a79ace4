"""The distillation loss as one step of autograd that finds its gradient on the way forward.

The gradient of both cross-entropies is known in closed form, so nothing is kept for a backward pass and
nothing is computed twice.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from bancache.losses.weights import Codes, LossWeights, Targets


def distil(
    logits: torch.Tensor, targets: Targets, samples: torch.Tensor, labels: torch.Tensor, terms: LossWeights
) -> torch.Tensor:
    """Return the mean loss of a batch, a scalar that knows its gradient with respect to ``logits``.

    On a CUDA device with triton this is one kernel; elsewhere its twin. ``tests/losses/test_kernel.py`` holds both
    to float64.

    Args:
        logits: The student's, float32 (B, C).
        targets: Codes of all samples, or the batch's probabilities, float32 (B, C).
        samples: int64 (B,), which rows of the codes; not looked at for probabilities.
        labels: int64 (B,).
        terms: What to weigh.
    """
    loss: torch.Tensor = _Distil.apply(logits, targets, samples, labels, terms)
    return loss


def twin(
    logits: torch.Tensor, targets: Targets, samples: torch.Tensor, labels: torch.Tensor, terms: LossWeights
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows' losses, float32 (B,), and the gradient of their mean, float32 (B, C); as ``loss.launch``."""
    t = _decoded(targets, samples, terms.temperature) if isinstance(targets, Codes) else targets
    log_p = torch.log_softmax(logits, dim=1)
    log_q = log_p if terms.temperature == 1 else torch.log_softmax(logits / terms.temperature, dim=1)
    teacher = -(t * log_q).sum(dim=1)
    if terms.divergence:
        teacher += torch.special.xlogy(t, t).sum(dim=1)
    label = labels[:, None]
    losses = terms.soft * teacher - terms.hard * log_p.gather(1, label)[:, 0]
    # Not exp(log q): that would carry the logarithm's rounding into the gradient.
    q = torch.softmax(logits / terms.temperature, dim=1)
    slope = (q * t.sum(dim=1, keepdim=True) - t) * (terms.soft / terms.temperature)
    if terms.hard:
        known = torch.full(label.shape, -1.0, device=logits.device)
        slope += torch.softmax(logits, dim=1).scatter_add(1, label, known) * terms.hard
    return losses, slope / len(logits)


def kernel_serves(logits: torch.Tensor) -> bool:
    """Whether the kernel can take logits: on a CUDA device, with triton, rows not too long for registers."""
    if logits.device.type != "cuda" or find_spec("triton") is None:
        return False
    from bancache.losses.triton_kernel import MOST_CLASSES

    return logits.shape[1] <= MOST_CLASSES


class _Distil(torch.autograd.Function):
    """Loss and gradient at once."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: Targets,
        samples: torch.Tensor,
        labels: torch.Tensor,
        terms: LossWeights,
    ) -> torch.Tensor:
        given = logits.detach().contiguous()
        if kernel_serves(given):
            from bancache.losses.triton_kernel import launch

            losses, gradient = launch(given, targets, samples, labels, terms)
        else:
            losses, gradient = twin(given, targets, samples, labels, terms)
        ctx.save_for_backward(gradient)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None


def _decoded(codes: Codes, samples: torch.Tensor, temperature: float) -> torch.Tensor:
    steps = codes.q.index_select(0, samples).to(torch.float32).clamp(min=codes.zero) / (codes.levels - 1)
    weights = steps.pow(codes.root / temperature)
    # Hundreds of small weights beside one large one: added up in float32 they lose more than a millionth.
    return weights / weights.sum(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
