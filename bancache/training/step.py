"""One step of training as a function of its batch: forward, loss, backward, SGD, sums; no number is asked back."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bancache.loader import Batch
from bancache.losses.fused import distil, kernel_serves
from bancache.losses.weights import LossWeights, loss_weights
from bancache.training.objective import objective
from bancache.training.run import Run
from bancache.training.state import TrainState


class Step:
    """What the eager loop calls with each batch, and what a graph replays."""

    def __init__(
        self,
        run: Run,
        forward: Callable[[torch.Tensor], torch.Tensor],
        optimizer: torch.optim.SGD,
        state: TrainState,
    ) -> None:
        """Bind a step to its net, its optimizer and the sums of an epoch.

        Args:
            run: Its recipe says which loss and precision.
            forward: From images to logits.
            optimizer: Its learning rate is set by who calls.
            state: Its ``loss`` and ``correct`` are added to, where they lie.
        """
        self._run, self._forward, self._optimizer, self._state = run, forward, optimizer, state
        recipe = run.recipe
        self._terms = loss_weights(recipe.loss, temperature=recipe.temperature, alpha=recipe.alpha)

    def __call__(self, batch: Batch) -> None:
        """Take one step of SGD."""
        # Every weight is cast once a step, so a cache of casts saves nothing; a captured step cannot have one.
        amp = self._run.recipe.amp
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=amp, cache_enabled=False):
            logits = self._forward(batch.images)
        logits = logits.to(torch.float32)
        loss = self._loss(logits, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        # On the device: asking for a number at every step would make a GPU wait.
        self._state.loss += loss.detach()
        self._state.correct += (logits.detach().argmax(dim=1) == batch.labels).sum()

    def _loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the objective, by the fused kernel where it serves; the values agree to a millionth."""
        answers = batch.targets if batch.codes is None else batch.codes
        fused = batch.codes is not None or kernel_serves(logits)
        if fused and answers is not None and self._terms is not None and batch.rows is not None:
            return distil(logits, answers, batch.rows, batch.labels, self._terms)
        return objective(self._run, logits, batch, self._state.epoch)


def decodes_itself(run: Run, device: torch.device, classes: int) -> bool:
    """Whether a run's loss reads codes as they are, in a kernel, so that the loader need not decode them."""
    recipe = run.recipe
    known: LossWeights | None = loss_weights(recipe.loss, temperature=recipe.temperature, alpha=recipe.alpha)
    return known is not None and kernel_serves(torch.empty(0, classes, device=device))
