"""What a step minimizes: labels alone for generation 0, else the recipe's loss with the teacher's answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bancache import losses
from bancache.loader import Batch
from bancache.philox import derive_seed
from bancache.training.run import Run


def objective(run: Run, logits: torch.Tensor, batch: Batch, epoch: int) -> torch.Tensor:
    """Return the loss of a batch, a scalar, for float32 logits (B, classes).

    Args:
        run: Its recipe says which loss, its seed how targets are permuted, its weight how much labels alone count.
        logits: The student's.
        batch: Labels, and the teacher's answers unless labels alone teach.
        epoch: From 0; permuted targets are others in each.
    """
    recipe, labels, targets = run.recipe, batch.labels, batch.targets
    if targets is None:
        return run.label_weight * F.cross_entropy(logits, labels)
    if recipe.loss == "ban":
        return losses.ban(logits, targets)
    if recipe.loss == "kd":
        return losses.kd(logits, targets, labels, temperature=recipe.temperature, alpha=recipe.alpha)
    if recipe.loss == "cwtm":
        return losses.cwtm(logits, targets, labels)
    if recipe.loss == "dkpp":
        seed = derive_seed(run.seed, "dkpp")
        keys = losses.permutation_keys(seed, epoch, batch.samples, logits.shape[1])
        return losses.dkpp(logits, targets, torch.from_numpy(keys).to(logits.device))
    return losses.ban_l(logits, targets, labels)
