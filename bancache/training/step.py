"""One training step as a function of its batch: forward, loss, backward, SGD. It never waits for the device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bancache.loader import Batch
from bancache.losses.fused import distil, kernel_serves
from bancache.losses.weights import LossWeights, loss_weights
from bancache.training.objective import objective
from bancache.training.recipe import Recipe
from bancache.training.run import Run
from bancache.training.state import TrainState


class Step:
    """Takes one step per call, in the eager loop and inside a captured graph.

    Attributes:
        run: The run; its recipe selects the loss and the precision.
        state: The model, its optimizer and the sums of the epoch; all are updated in place.
    """

    def __init__(self, run: Run, forward: Callable[[torch.Tensor], torch.Tensor], state: TrainState) -> None:
        """Bind a step to its state.

        Args:
            run: The run.
            forward: Maps images to logits with the state's model. The caller sets the optimizer's learning rate.
            state: Updated in place.
        """
        self.run, self.state, self._forward = run, state, forward
        self._weights = _weights(run.recipe)

    def __call__(self, batch: Batch) -> None:
        """Take one step of SGD."""
        # Each weight is cast once per step, so caching the casts saves nothing; a captured step cannot use a cache.
        amp = self.run.recipe.amp
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=amp, cache_enabled=False):
            logits = self._forward(batch.images)
        logits = logits.to(torch.float32)
        loss = self._loss(logits, batch)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.state.optimizer.step()
        # The sums stay on the device: reading a number at every step would make the host wait for the GPU.
        self.state.loss += loss.detach()
        self.state.correct += (logits.detach().argmax(dim=1) == batch.labels).sum()

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss from the fused kernel where possible. Both ways agree to one millionth."""
        targets = batch.targets if batch.codes is None else batch.codes
        fused = batch.codes is not None or kernel_serves(logits)
        if fused and targets is not None and self._weights is not None and batch.rows is not None:
            return distil(logits, targets, batch.rows, batch.labels, self._weights)
        return objective(self.run, logits, batch, self.state.epoch)


def decodes_itself(run: Run, device: torch.device, classes: int) -> bool:
    """Whether the run's loss decodes the targets in its own kernel, so that the loader can skip it."""
    return _weights(run.recipe) is not None and kernel_serves(torch.empty(0, classes, device=device))


def _weights(recipe: Recipe) -> LossWeights | None:
    return loss_weights(recipe.loss, temperature=recipe.temperature, alpha=recipe.alpha)
