"""One training step as a function of its batch: forward, loss, backward, optimizer. It never waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from bancache import losses
from bancache.loader import Batch
from bancache.losses.device_keys import device_permutation_keys
from bancache.losses.fused import distil, kernel_serves
from bancache.losses.weights import LossWeights, MixedLabels, loss_weights
from bancache.philox import derive_seed
from bancache.training.recipe import Recipe
from bancache.training.run import Run
from bancache.training.state import TrainState


class Step:
    """Takes one step per call, in the eager loop and inside a captured graph, and updates ``state`` in place.

    A mixed view counts as correct if the model names the label with the larger share.
    """

    def __init__(self, run: Run, forward: Callable[[torch.Tensor], torch.Tensor], state: TrainState) -> None:
        """``forward`` maps images to logits with the state's model. The caller sets the optimizer's rate and ``epoch``."""
        self.run, self.state, self._forward = run, state, forward
        # On the device, so that a captured step reads it.
        self.epoch = torch.zeros((), dtype=torch.int64, device=state.device)
        self._weights = _weights(run.recipe)

    def __call__(self, batch: Batch) -> None:
        """Take one step."""
        # Each weight is cast once per step, so caching the casts saves nothing; a captured step cannot use a cache.
        amp = self.run.recipe.amp
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=amp, cache_enabled=False):
            logits = self._forward(batch.images)
        logits = logits.to(torch.float32)
        loss = self._loss(logits, batch)
        if self.run.recipe.label_smoothing:
            loss = loss + smoothing(self.run, logits, batch)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.run.recipe.clip_grad:
            torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), self.run.recipe.clip_grad)
        self.state.optimizer.step()
        if self.state.averaged is not None:
            average(self.state.averaged, self.state.model, self.run.recipe.ema)
        # The sums stay on the device: reading a number at every step would make the host wait for the GPU.
        self.state.loss += loss.detach()
        labels = batch.labels.larger if isinstance(batch.labels, MixedLabels) else batch.labels
        self.state.correct += (logits.detach().argmax(dim=1) == labels).sum()

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss from the fused kernel where possible. Both ways agree to one millionth."""
        targets = batch.targets if batch.codes is None else batch.codes
        fused = batch.codes is not None or kernel_serves(logits)
        if fused and targets is not None and self._weights is not None and batch.rows is not None:
            return distil(logits, targets, batch.rows, batch.labels, self._weights)
        return objective(self.run, logits, batch, self.epoch)


def objective(run: Run, logits: torch.Tensor, batch: Batch, epoch: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch for float32 logits (B, classes): cross-entropy without targets, else the recipe's loss.

    Loss ``dkpp`` draws new permutations in each ``epoch``, an int64 scalar on the device of the logits.
    """
    if batch.targets is None:
        return run.label_weight * losses.cross_entropy(logits, batch.labels)
    loss = _student_loss(run, logits, batch, batch.targets, epoch)
    return loss if run.recipe.loss_scale == 1 else run.recipe.loss_scale * loss


def _student_loss(
    run: Run, logits: torch.Tensor, batch: Batch, targets: torch.Tensor, epoch: torch.Tensor
) -> torch.Tensor:
    recipe, labels = run.recipe, batch.labels
    if run.own_loss is not None:
        return run.own_loss(logits, targets, labels)
    if recipe.loss == "ban":
        return losses.ban(logits, targets)
    if recipe.loss == "kd":
        return losses.kd(logits, targets, labels, temperature=recipe.temperature, alpha=recipe.alpha)
    if recipe.loss == "cwtm":
        return losses.cwtm(logits, targets, labels)
    if recipe.loss == "dkpp":
        assert batch.rows is not None  # a loader's batches have them
        seed, rows = derive_seed(run.seed, "dkpp"), batch.rows.to(logits.device, non_blocking=True)
        return losses.dkpp(logits, targets, device_permutation_keys(seed, epoch, rows, logits.shape[1]))
    return losses.ban_l(logits, targets, labels)


def smoothing(run: Run, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return what label smoothing adds to the loss of a batch, a scalar.

    Cross-entropy with ε of each label spread over all classes is CE + ε · (z_label − mean z), whatever computed CE.
    """
    recipe, labels = run.recipe, batch.labels

    def logit(label: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, label[:, None])[:, 0]

    if isinstance(labels, MixedLabels):
        named = torch.lerp(logit(labels.partner), logit(labels.own), labels.lam.to(logits.dtype))
    else:
        named = logit(labels)
    more = named - logits.mean(dim=1)
    if batch.targets is None and batch.codes is None:
        weight = run.label_weight
    elif recipe.loss == "cwtm":
        assert batch.targets is not None  # its targets are always decoded
        confidence = batch.targets.amax(dim=1)
        more, weight = more * confidence / confidence.mean(), recipe.loss_scale
    else:
        known = _weights(recipe)
        weight = known.hard if known else 0.0
    return recipe.label_smoothing * weight * more.mean()


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average towards a model by 1 − ``decay``, statistics included; counters are copied. As timm does it."""
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mean for mean, _ in moving], [new for _, new in moving], weight=1 - decay)
    for mean, new in pairs:
        if not mean.is_floating_point():
            mean.copy_(new)


def decodes_itself(run: Run, device: torch.device, classes: int) -> bool:
    """Whether the run's loss decodes the targets in its own kernel, so that the loader can skip it."""
    return _weights(run.recipe) is not None and kernel_serves(torch.empty(0, classes, device=device))


def _weights(recipe: Recipe) -> LossWeights | None:
    weights = loss_weights(recipe.loss, temperature=recipe.temperature, alpha=recipe.alpha)
    if weights is None or recipe.loss_scale == 1:
        return weights
    scale = recipe.loss_scale
    return replace(weights, hard=scale * weights.hard, soft=scale * weights.soft)
