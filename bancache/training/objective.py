"""The loss of a batch: cross-entropy for generation 0, else the recipe's distillation loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bancache import losses
from bancache.loader import Batch
from bancache.philox import derive_seed
from bancache.training.run import Run


def objective(run: Run, logits: torch.Tensor, batch: Batch, epoch: int) -> torch.Tensor:
    """Return the loss of a batch, a scalar, for the student's float32 logits (B, classes).

    Args:
        run: Its recipe selects the loss, its seed the permutations, its label weight scales the cross-entropy.
        logits: Logits of the student.
        batch: Labels, and soft targets unless labels alone teach.
        epoch: Epoch from 0; loss ``dkpp`` draws new permutations in each.
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
