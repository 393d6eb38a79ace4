"""The loss of a training step with its gradient, in one Triton kernel where that runs."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from bancache.losses.reference import attach_gradient, loss_and_gradient
from bancache.losses.weights import Codes, Labels, LossWeights, Targets


def distil(
    logits: torch.Tensor, targets: Targets, samples: torch.Tensor, labels: Labels, weights: LossWeights
) -> torch.Tensor:
    """Return the mean loss of a batch in nats, by one Triton kernel where it runs, else by the reference.

    ``targets`` are the codes of all samples, of which ``samples`` int64 (B,) are the batch's rows, or the batch's
    probabilities, float32 (B, C).
    """
    with torch.no_grad():
        values = logits.detach().contiguous()
        if kernel_serves(values):
            from bancache.losses.triton_kernel import launch

            losses, gradient = launch(values, targets, samples, labels, weights)
        else:
            if isinstance(targets, Codes):
                targets = targets.probabilities(samples, weights.temperature)
            losses, gradient = loss_and_gradient(values, targets, labels, weights)
    return attach_gradient(logits, losses.mean(), gradient)


def kernel_serves(logits: torch.Tensor) -> bool:
    """Whether the kernel takes these logits: on a CUDA device, with triton, and rows that fit in registers."""
    if logits.device.type != "cuda" or find_spec("triton") is None:
        return False
    from bancache.losses.triton_kernel import MAX_CLASSES

    return logits.shape[1] <= MAX_CLASSES
