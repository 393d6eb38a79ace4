"""Models by name; arguments that a model cannot take are refused here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bancache.errors import UsageError
from bancache.models.densenet import densenet, densenet_skeleton
from bancache.models.families import convnet, preactivation_resnet, resnet, wide_resnet
from bancache.models.match import match_densenet, match_preresnet, match_wide_resnet
from bancache.models.names import LIBRARIES, ModelName, parse_name
from bancache.models.third_party import timm_model, torchvision_model

_SMALLEST = 8
_DROPOUT = ("wrn", "match-wrn")
_CHECKPOINT = ("densenet-bc", "match-densenet")
_BUILT_AS = "bancache_architecture"


@dataclass(frozen=True)
class _Options:
    """The arguments of ``build_model`` beside the name."""

    classes: int
    channels: int
    image_size: tuple[int, int]
    dropout: float
    checkpoint_activations: bool


def build_model(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
) -> nn.Module:
    """Return a freshly initialized model of float ``(B, channels, H, W)`` to logits ``(B, classes)``.

    Weights come from torch's default generator; its seed decides them. Models of this package have ``first_layer`` and
    ``last_layer``, and take any image of at least 8x8, whatever ``image_size`` they were built for.

    Args:
        name: As in ``bancache.models.names``; models of torchvision and timm come untrained.
        classes: Number of classes, at least two.
        channels: 1 or 3.
        image_size: Height and width of the images in pixels; models of torchvision and timm are tried on one image.
        dropout: Rate between the two convolutions of a wide residual unit (the paper: 0.3); other models have none.
        checkpoint_activations: DenseNets save memory by computing concatenations twice; the results are the same.

    Raises:
        UsageError: There is no such model, or it cannot take these arguments.
        MissingExtraError: The name needs timm and it is not installed.

    >>> import torch
    >>> build_model("wrn-10-1", classes=10, channels=1)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    parsed = parse_name(name)
    options = _Options(classes, channels, image_size, dropout, checkpoint_activations)
    _check(parsed, options)
    model = _build(parsed, options)
    setattr(model, _BUILT_AS, {"name": str(parsed), **asdict(options), "image_size": list(image_size)})
    return model


def built_as(model: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of the ``build_model`` that made a model, as JSON values; None if it is from elsewhere."""
    found = vars(model).get(_BUILT_AS)
    return dict(found) if isinstance(found, dict) else None


def _build(parsed: ModelName, options: _Options) -> nn.Module:
    classes, channels, image_size = options.classes, options.channels, options.image_size
    if parsed.family == "torchvision":
        return torchvision_model(parsed.within, classes, channels, image_size)
    if parsed.family == "timm":
        return timm_model(parsed.within, classes, channels, image_size)
    return _match(parsed, options) if parsed.family.startswith("match-") else _plain(parsed, options)


def build_skeleton(name: str, **arguments: Any) -> nn.Module:
    """Return ``build_model``'s model without memory for its parameters, which are on torch's meta device.

    The few models of timm that compute with their first weights are built as by ``build_model``.
    """
    if parse_name(name).family not in LIBRARIES:
        with torch.device("meta"), _WithoutNumbers():
            return build_model(name, **arguments)
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        register(module, key, parameter)

    # RegNets and much of timm cannot be built under torch.device("meta"): they compute with numbers of tensors.
    nn.Module.register_parameter = on_meta  # type: ignore[assignment, method-assign]
    try:
        with _WithoutNumbers():
            return build_model(name, **arguments)
    except UsageError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
    return build_model(name, **arguments)


class _WithoutNumbers(TorchFunctionMode):
    """Leaves out all that changes a tensor of the meta device in place; torch would import its compiler for that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor as it is, or the function's result."""
        name, tensor = getattr(func, "__name__", ""), args[0] if args else (kwargs or {}).get("tensor")
        if name.endswith("_") and name[-2:] != "__" and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


def _plain(name: ModelName, options: _Options) -> nn.Module:
    """Return a model of this package that follows no teacher."""
    size, *others = (int(size) for size in name.sizes)
    shape = (options.channels, options.classes)
    if name.family == "densenet-bc":
        return densenet(size, others[0], *shape, checkpoint_activations=options.checkpoint_activations)
    if name.family == "wrn":
        return wide_resnet(size, others[0], *shape, options.dropout)
    build = {"preresnet": preactivation_resnet, "resnet": resnet, "convnet": convnet}[name.family]
    return build(size, *shape)


def _match(name: ModelName, options: _Options) -> nn.Module:
    """Return a match model with the hidden shapes of a DenseNet."""
    depth, growth = (int(size) for size in parse_name(name.within).sizes)
    skeleton = densenet_skeleton(depth, growth)
    units = int(name.sizes[0])
    shape = (skeleton, options.channels, options.classes)
    if name.family == "match-wrn":
        return match_wide_resnet(units, name.sizes[1], *shape, options.dropout)
    if name.family == "match-preresnet":
        return match_preresnet(units, name.sizes[1], *shape)
    sizes = (units, name.sizes[1], name.sizes[2])
    return match_densenet(sizes, *shape, checkpoint_activations=options.checkpoint_activations)


def _check(name: ModelName, options: _Options) -> None:
    """Refuse arguments that a model cannot take."""
    if options.classes < 2:
        raise UsageError(f"{name}: a classifier needs two classes or more, not {options.classes}")
    if options.channels not in {1, 3}:
        raise UsageError(f"{name}: images have 1 or 3 channels, not {options.channels}")
    height, width = options.image_size
    if min(height, width) < (_SMALLEST if name.family not in LIBRARIES else 1):
        raise UsageError(
            f"{name}: images are {height}x{width} pixels, the model needs {_SMALLEST}x{_SMALLEST} or more",
            hint="show it larger views, such as --size 16",
        )
    if not 0.0 <= options.dropout < 1.0:
        raise UsageError(f"{name}: dropout is a probability below 1, not {options.dropout}")
    if options.dropout and name.family not in _DROPOUT:
        raise UsageError(
            f"{name}: dropout {options.dropout}, but only wide residual units have dropout",
            hint="leave dropout out, or choose a wrn-D-K or match-wrn-N-R",
        )
    if options.checkpoint_activations and name.family not in _CHECKPOINT:
        raise UsageError(
            f"{name}: cannot checkpoint its activations; only DenseNets do",
            hint="leave it out, or choose a densenet-bc-D-G or match-densenet-A-B-C",
        )
