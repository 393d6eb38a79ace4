"""The distillation loss of a training step: one Triton kernel where it runs, else the reference."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from bancache.losses.reference import attach_gradient, loss_and_gradient
from bancache.losses.weights import Codes, LossWeights, Targets


def distil(
    logits: torch.Tensor, targets: Targets, samples: torch.Tensor, labels: torch.Tensor, weights: LossWeights
) -> torch.Tensor:
    """Return the mean loss of a batch in nats, a scalar with a gradient with respect to ``logits``.

    On a CUDA device with triton this is one kernel, elsewhere ``loss_and_gradient``.
    ``tests/losses/test_kernel.py`` compares both to float64.

    Args:
        logits: The student's, float32 (B, C).
        targets: Codes of all samples, or the batch's probabilities, float32 (B, C).
        samples: int64 (B,), the rows of the codes; not used with probabilities.
        labels: int64 (B,).
        weights: Weights and temperature of the two terms.
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
