"""A student's loss from a function of the user's own, which the user named on the command line or passed in Python."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bancache.errors import BancacheError, UsageError, is_out_of_memory
from bancache.losses.weights import Labels
from bancache.models import user_code


@dataclass(frozen=True)
class OwnLoss:
    """A loss that is called as ``function(logits, targets, labels)`` at every step.

    Attributes:
        name: ``module:function``, as the recipe records it.
        function: Takes the student's logits, float32 (B, classes), the teacher's probabilities, float32 (B, classes), and
            labels, int64 (B,) or ``MixedLabels``. Returns a scalar, or the loss of each row, (B,).
        source: sha256 of the module's text: a run that goes on must go on with the same loss.
    """

    name: str
    function: Callable[..., object]  # it is the user's, so its answer is looked at
    source: str

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, labels: Labels) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar; an error of the function is a UsageError that names its line."""
        try:
            with user_code.to_stderr():
                loss = self.function(logits, targets, labels)
        except (Exception, SystemExit) as error:
            if isinstance(error, BancacheError) or is_out_of_memory(error):
                raise
            raise UsageError(
                f"loss '{self.name}' fails: {user_code.describe(error)}", hint=user_code.HINT
            ) from error
        if not isinstance(loss, torch.Tensor) or loss.shape not in ((), logits.shape[:1]):
            raise UsageError(
                f"loss '{self.name}' returned {tuple(loss.shape) if isinstance(loss, torch.Tensor) else loss!r} "
                f"for {len(logits)} rows",
                hint="let it return a scalar, or one number for each row",
            )
        if not loss.requires_grad:
            raise UsageError(
                f"loss '{self.name}' does not depend on the logits",
                hint="compute it from the logits, without detach()",
            )
        return loss.mean()


def load_loss(name: str) -> OwnLoss:
    """Import ``module:function``, which executes the module: the name must come from the user, never from a file.

    Raises:
        UsageError: There is no such function, its module fails, or its text cannot be read.
    """
    module, function = user_code.find(name, "loss")
    if not callable(function):
        raise UsageError(
            f"loss '{name}' is a {type(function).__name__}",
            hint="name a function of (logits, targets, labels)",
        )
    try:
        text = inspect.getsource(module)
    except (OSError, TypeError) as error:
        raise UsageError(
            f"loss '{name}': the source of {module.__name__} cannot be read",
            hint="name a function in a .py file",
        ) from error
    return OwnLoss(name, function, hashlib.sha256(text.encode()).hexdigest())
