"""The weights that torchvision and timm publish."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from bancache.errors import CheckpointError, MissingExtraError, UsageError
from bancache.models.names import LIBRARIES
from bancache.models.third_party import require_timm


def published_weights(name: str) -> Mapping[str, torch.Tensor]:
    """Return the weights that torchvision or timm publish for a model, from where they keep or download them.

    Raises:
        CheckpointError: They cannot be downloaded.
        UsageError: Nobody publishes weights of this model.
    """
    library, _, own = name.partition(":")
    if library not in LIBRARIES:
        raise UsageError(f"nobody publishes weights of model '{name}'", hint="name a file: --weights FILE")
    try:
        return _of_torchvision(own) if library == "torchvision" else _of_timm(own)
    except (UsageError, MissingExtraError, MemoryError):
        raise
    except Exception as error:  # a download fails in many ways
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"the published weights of {name} cannot be had: {why[:200]}",
            hint="download them elsewhere, and name the file: --weights FILE",
        ) from error


def _of_torchvision(name: str) -> Mapping[str, torch.Tensor]:
    from torchvision import models

    published = models.get_model_weights(name)
    if not list(published):
        raise UsageError(f"torchvision publishes no weights of {name}", hint="name a file: --weights FILE")
    state: Mapping[str, torch.Tensor] = published.DEFAULT.get_state_dict(
        progress=False, check_hash=True, weights_only=True, map_location="cpu"
    )
    return state


def _of_timm(name: str) -> Mapping[str, torch.Tensor]:
    model: nn.Module = require_timm(name).create_model(name, pretrained=True)
    return model.state_dict()
