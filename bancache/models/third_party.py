"""Models of torchvision and timm by their own names, untrained, tried on one image of the expected size."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import nn

from bancache.errors import MissingExtraError, UsageError


def torchvision_model(name: str, classes: int, channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier of torchvision, initialized by torchvision, without pretrained weights.

    With one channel the first convolution keeps the weights of the first of three channels.
    """
    from torchvision import models

    require_torchvision(name)
    extra: dict[str, Any] = {}
    if name in {"googlenet", "inception_v3"}:
        extra = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        extra = {"image_size": image_size[0]}
    elif name.startswith("maxvit"):
        extra = {"input_size": image_size}

    def build() -> nn.Module:
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **extra)
        if channels == 1:
            _make_gray(model)
        return model

    return _tried(f"torchvision:{name}", build, classes, channels, image_size)


def require_torchvision(name: str) -> None:
    """Raise ``UsageError`` for what is no classifier of torchvision; the hint has the nearest names."""
    from torchvision import models

    if name not in (known := models.list_models(module=models)):
        raise _unknown("torchvision", name, known)


def require_timm(name: str) -> Any:
    """Return timm if it has a model of this name, perhaps with a tag; else raise ``UsageError`` with the nearest names."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        what = f"timm:{name} needs {error.name}, which is not installed"
        raise MissingExtraError(what, hint='pip install "bancache[timm]"') from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    return timm


def timm_model(name: str, classes: int, channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier of timm, initialized by timm, without pretrained weights."""
    timm = require_timm(name)
    build = partial(timm.create_model, name, pretrained=False, num_classes=classes, in_chans=channels)
    return _tried(f"timm:{name}", build, classes, channels, image_size)


def _tried(
    name: str, build: Callable[[], nn.Module], classes: int, channels: int, image_size: tuple[int, int]
) -> nn.Module:
    """Return the model after it took one black image of that size to logits ``(1, classes)``.

    The image is a real one: RegNets and much of timm cannot be built on the meta device.
    """
    try:
        model = build().eval()
        if any(parameter.is_meta for parameter in model.parameters()):
            return model.train()  # a skeleton
        with torch.no_grad():
            out = model(torch.zeros(1, channels, *image_size))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name} cannot take images of {channels}x{image_size[0]}x{image_size[1]}: {error}",
            hint="choose a model for small images, such as wrn-16-2, or larger views: --size, a teacher's --teacher-size",
        ) from error
    if not isinstance(out, torch.Tensor) or out.shape != (1, classes):
        raise UsageError(
            f"{name} does not return {classes} logits for an image, so it is no classifier",
            hint="choose a classifier, such as torchvision:resnet18",
        )
    return model.train()


def _make_gray(model: nn.Module) -> None:
    """Let the first convolution take one channel."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            module.in_channels = 1
            module.weight = nn.Parameter(module.weight.detach()[:, :1].clone())
            return
    raise ValueError("no convolution that takes three channels")


def _unknown(library: str, name: str, known: list[str]) -> UsageError:
    """Return the error for a name that the library does not have, with the nearest ones."""
    near = [f"{library}:{each}" for each in get_close_matches(name, known, n=3, cutoff=0.5)]
    hint = f"the nearest: {', '.join(near)}" if near else f"{library} lists its names with list_models()"
    return UsageError(f"{library} has no model called {name!r}", hint=hint)
