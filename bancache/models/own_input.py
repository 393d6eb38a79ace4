"""The input that a third-party model was trained on, as its library or its author records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bancache.errors import UsageError
from bancache.models.third_party import require_timm, require_torchvision
from bancache.views.model_input import ModelInput, Normalization


def own_input(spec: str, model: nn.Module, channels: int) -> ModelInput | None:
    """Return the input of ``torchvision:NAME``, ``timm:NAME`` or ``module:function``; None if nothing records it.

    timm's models have it as ``pretrained_cfg``; a model of your own may have this attribute, too: a dict with
    ``mean`` and ``std`` in 0..1 and, if known, ``input_size`` (C, H, W) and ``interpolation``.
    """
    if spec.startswith("torchvision:"):
        return _of_torchvision(spec.removeprefix("torchvision:"), channels)
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "mean" not in config or "std" not in config:
        return None
    origin = "timm" if spec.startswith("timm:") else f"{spec}'s pretrained_cfg"
    try:
        return _input(config["mean"], config["std"], config.get("input_size"), config, origin, channels)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise UsageError(
            f"{origin} makes no sense: {error}",
            hint="mean and std are numbers in 0..1, one a channel; input_size is (C, H, W), or leave it out",
        ) from error


def own_size(spec: str) -> tuple[int, int] | None:
    """Return height and width of the input of ``torchvision:NAME`` or ``timm:NAME``, before it is built.

    None if nothing records them, and for other models. Errors are those of building it.
    """
    if spec.startswith("torchvision:"):
        known = _of_torchvision(spec.removeprefix("torchvision:"), channels=3)
        return known.size if known else None
    if spec.startswith("timm:"):
        name = spec.removeprefix("timm:")
        config = require_timm(name).models.get_pretrained_cfg(name)
        return None if config is None else (int(config.input_size[-2]), int(config.input_size[-1]))
    return None


def choose_input(
    name: str,
    recorded: ModelInput | None,
    mean: Sequence[float] | Normalization | str | None,
    std: Sequence[float] | None,
    channels: int,
) -> ModelInput:
    """Return what a third-party model is given: as ``mean`` and ``std`` in 0..1 say, else as ``recorded``.

    Raises:
        UsageError: Nothing says it, or one of the two is missing.
    """
    size = recorded.size if recorded else None
    if isinstance(mean, Normalization) and std is None:
        return ModelInput(size, mean, "the data")
    if mean is None and std is None:
        if recorded is None:
            raise UsageError(
                f"nothing says how the images of model '{name}' are normalized",
                hint="add --mean and --std, as 0.485,0.456,0.406 and 0.229,0.224,0.225; --mean 0 --std 1 for none; "
                "or --mean data for the statistics of the data",
            )
        return recorded
    if mean is None or std is None or isinstance(mean, Normalization | str):
        raise UsageError(
            "a normalization has a mean and a std", hint="write --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25"
        )
    return ModelInput(size, Normalization.of_fractions(mean, std, channels), "the options")


def _of_torchvision(name: str, channels: int) -> ModelInput | None:
    """Return the input of torchvision's default weights; a few models were published without weights."""
    from torchvision import models

    require_torchvision(name)
    published = list(models.get_model_weights(name))
    if not published:
        return None
    default = models.get_model_weights(name).DEFAULT.transforms()
    config = {"interpolation": default.interpolation.value}
    size = (channels, *(2 * default.crop_size)[:2])
    return _input(default.mean, default.std, size, config, "torchvision", channels)


def _input(
    mean: Any, std: Any, size: Any, config: Mapping[str, Any], origin: str, channels: int
) -> ModelInput:
    normalization = Normalization.of_fractions(mean, std, channels)
    height_width = None if size is None else (int(size[-2]), int(size[-1]))
    return ModelInput(height_width, normalization, origin, config.get("interpolation"))
