"""What all models of this package have in common: first layer, stages, tail, average, last layer; and sharing of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from bancache.errors import UsageError

ShareMode = Literal["copy", "freeze", "none"]


class Frame(nn.Module):
    """A model with a named first and last layer: ``(B, channels, H, W)`` to ``(B, classes)``.

    Attributes:
        first_layer: A 3x3 convolution of the image, stride 1, no bias.
        stages: The stages in order; the output of each is a hidden state ``(B, C_i, H_i, W_i)``.
        tail: Layers between the last stage and the average, usually BatchNorm and ReLU.
        last_layer: The classifier, with a bias.
    """

    def __init__(
        self, channels: int, stem: int, stages: Sequence[nn.Module], tail: nn.Module, out: int, classes: int
    ) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stages = nn.ModuleList(stages)
        self.tail = tail
        self.last_layer = nn.Linear(out, classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)`` of images ``(B, channels, H, W)``."""
        hidden: Tensor = self.first_layer(images)
        for stage in self.stages:
            hidden = stage(hidden)
        pooled = self.tail(hidden).mean(dim=(2, 3))  # (B, out)
        logits: Tensor = self.last_layer(pooled)
        return logits


def norm_relu(channels: int) -> nn.Sequential:
    """BatchNorm and ReLU of ``(B, channels, H, W)``."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def brc(size: Literal[1, 3], channels: int, out: int) -> nn.Sequential:
    """BatchNorm, ReLU and a convolution without bias: ``(B, channels, H, W)`` to ``(B, out, H, W)``."""
    conv = nn.Conv2d(channels, out, size, padding=size // 2, bias=False)
    return nn.Sequential(*norm_relu(channels), conv)


def initialize(model: nn.Module) -> None:
    """Draw initial weights as the published Lua code of these families does.

    Convolutions of size k are normal with variance 2 / (k * k * output channels) (``ConvInit`` and ``MSRinit`` of
    fb.resnet.torch, resnet-1k-layers, DenseNet and wide-residual-networks), classifiers uniform within
    1 / sqrt(inputs) (Torch7's default) with a bias of zero, BatchNorm gains 1 and biases 0. One thing differs:
    wide-residual-networks leaves the gains to Torch7, which draws them from 0 to 1; here they are 1, as in the other
    families and in most later code. Numbers come from torch's default generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def share_layers(student: nn.Module, teacher: nn.Module, mode: ShareMode) -> None:
    """Copy the weights of the teacher's first and last layer to the student. All shapes are checked first.

    ``copy`` trains the copied layers further, ``freeze`` takes their gradients away (create the optimizer afterwards),
    ``none`` does nothing. Missing layers, and shapes that differ, are a UsageError.
    """
    if mode not in {"copy", "freeze", "none"}:
        raise UsageError(f"layers are shared by 'copy', 'freeze' or 'none', not {mode!r}")
    if mode == "none":
        return
    pairs = [
        (name, _layer(student, name, "student"), _layer(teacher, name, "teacher"))
        for name in ("first_layer", "last_layer")
    ]
    for name, *layers in pairs:
        shapes = [{key: tuple(value.shape) for key, value in layer.state_dict().items()} for layer in layers]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{name}: the student's is {shapes[0]}, the teacher's {shapes[1]}",
                hint="a match model of this teacher (match-wrn-1-1@TEACHER) has the same layers; or choose 'none'",
            )
    for _, own, source in pairs:
        own.load_state_dict(source.state_dict())
        if mode == "freeze":
            own.requires_grad_(requires_grad=False)


def _layer(model: nn.Module, name: str, role: str) -> nn.Module:
    layer = getattr(model, name, None)
    if isinstance(layer, nn.Module):
        return layer
    raise UsageError(
        f"the {role} ({type(model).__name__}) has no {name}, so its layers cannot be shared",
        hint="share layers between bancache's own models only, or choose 'none'",
    )
