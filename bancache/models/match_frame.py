"""The frame all our nets share: first layer, stages, tail, average over the image, last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn


class Frame(nn.Module):
    """A net whose ends can be told from what lies between: ``(B, channels, H, W)`` to ``(B, classes)``.

    Attributes:
        first_layer: The convolution that sees the image, 3x3, stride 1, no bias.
        stages: What lies between, in order; the output of each is a hidden state ``(B, C_i, H_i, W_i)``.
        tail: What follows the last stage before the average, usually BatchNorm and ReLU.
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

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``(B, classes)`` of images ``(B, channels, H, W)``."""
        hidden: Tensor = self.first_layer(images)
        for stage in self.stages:
            hidden = stage(hidden)
        pooled = self.tail(hidden).mean(dim=(2, 3))  # (B, out)
        scores: Tensor = self.last_layer(pooled)
        return scores


def norm_relu(channels: int) -> nn.Sequential:
    """BatchNorm and ReLU of ``(B, channels, H, W)``."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def brc(size: Literal[1, 3], channels: int, out: int) -> nn.Sequential:
    """BatchNorm, ReLU and a convolution without bias: ``(B, channels, H, W)`` to ``(B, out, H, W)``."""
    conv = nn.Conv2d(channels, out, size, padding=size // 2, bias=False)
    return nn.Sequential(*norm_relu(channels), conv)


def initialize(net: nn.Module) -> None:
    """Draw a net's first weights as the published Lua code of all our families does.

    Convolutions of size k are normal with variance 2 / (k * k * output channels) (``ConvInit`` and ``MSRinit`` of
    fb.resnet.torch, resnet-1k-layers, DenseNet and wide-residual-networks), classifiers uniform within
    1 / sqrt(inputs) (Torch7's default) with a bias of zero, BatchNorm gains 1 and biases 0. In one thing we leave
    a source: wide-residual-networks does not set the gains, which Torch7 draws from 0 to 1; we set them to 1 like
    the others, and like most that came after it.

    Args:
        net: Changed in place; the numbers come from torch's default generator.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
