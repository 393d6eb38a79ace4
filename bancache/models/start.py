"""Weights that a training starts from: of a checkpoint, of a file, or as torchvision and timm publish them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bancache.models.build import build_skeleton
from bancache.models.checkpoint import PathLike, State, fingerprint_state, is_checkpoint, load_checkpoint
from bancache.models.names import LIBRARIES, PRETRAINED, parse_name
from bancache.models.own_input import own_input
from bancache.models.pickled import Stored
from bancache.models.published import published_weights
from bancache.models.teacher import arguments_of, checkpoint_input
from bancache.models.weights import find_weights, fit_weights
from bancache.system.progress import Progress, Silent
from bancache.views.model_input import ModelInput


@dataclass(frozen=True, eq=False)
class StartWeights:
    """Weights for a model before its first step.

    Attributes:
        state: Tensors by the model's names.
        head: Names of those that are for another number of classes; the model keeps its own of these.
        fingerprint: sha256 of all of them; of a checkpoint, the one that its header has.
        input: The images that they were trained on; None if nothing records them.
    """

    state: State
    head: tuple[str, ...]
    fingerprint: str
    input: ModelInput | None

    def put_into(self, model: nn.Module) -> None:
        """Load all weights but the head's."""
        kept = {name: value for name, value in self.state.items() if name not in self.head}
        model.load_state_dict({**model.state_dict(), **kept})


def load_start(
    architecture: dict[str, Any], weights: PathLike, progress: Progress | None = None
) -> StartWeights:
    """Read weights that fit a model, except perhaps its head; no code in the file is executed.

    Args:
        architecture: Arguments of ``build_model`` as JSON values.
        weights: A checkpoint of bancache, a file as for a teacher of torchvision or timm, or ``pretrained`` for what these
            two publish; they download it once.
        progress: Is told which weights were left out.

    Raises:
        CheckpointError: The file is missing or damaged, the weights do not fit, or cannot be downloaded.
        UsageError: Several sets of weights in the file fit, or nobody publishes weights of this model.
    """
    name, weights, path = architecture["name"], os.fspath(weights), Path(weights)
    model, known = build_skeleton(**arguments_of(architecture)), None
    if weights == PRETRAINED:
        content = _stored(published_weights(name))
        state, head = fit_weights(model, name, path, content, progress, new_head=True)
    elif is_checkpoint(path):
        checkpoint = load_checkpoint(path)
        state, head = fit_weights(model, name, path, _stored(checkpoint.state), progress, new_head=True)
        known = checkpoint_input(checkpoint.header)
    else:
        state, head = find_weights(model, name, weights, progress, new_head=True)
    if known is None and parse_name(name).family in LIBRARIES:
        known = own_input(name, model, architecture["channels"])
    if head:
        (progress or Silent()).note(
            f"{weights}: left out {', '.join(head)}, for {len(state[head[0]])} classes; the model has new ones for "
            f"{architecture['classes']}"
        )
    return StartWeights(state, head, fingerprint_state(state), known)


def _stored(state: Mapping[str, torch.Tensor]) -> dict[str, Stored]:
    def content_of(tensor: torch.Tensor) -> Stored:
        return Stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor)

    return {name: content_of(tensor) for name, tensor in state.items()}
