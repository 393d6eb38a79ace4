"""Pre-activation residual units, wide and bottleneck, and the two families made of three stages of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bancache.models.match_frame import Frame, norm_relu


class WideUnit(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3 beside a shortcut (Zagoruyko and Komodakis 2016, figure 1d).

    Takes ``(B, channels, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``. Where the shape changes the
    shortcut is a 1x1 convolution of the activated input, elsewhere it is the input itself.
    """

    def __init__(self, channels: int, out: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.projection = _projection(channels, out, stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """The unit's output; see the class for shapes."""
        active = F.relu(self.norm1(hidden), inplace=True)
        inner = F.relu(self.norm2(self.conv1(active)), inplace=True)
        change: Tensor = self.conv2(self.dropout(inner))
        return change + (hidden if self.projection is None else self.projection(active))


class Bottleneck(nn.Module):
    """BN-ReLU before each of conv1x1, conv3x3, conv1x1, beside a shortcut (He et al. 2016, Identity Mappings).

    Takes ``(B, channels, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))`` through ``inner`` channels. The
    stride is in the first convolution, as in resnet-1k-layers; the shortcut is that of ``WideUnit``.
    """

    def __init__(self, channels: int, inner: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, inner, 1, stride, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.projection = _projection(channels, out, stride)

    def forward(self, hidden: Tensor) -> Tensor:
        """The unit's output; see the class for shapes."""
        active = F.relu(self.norm1(hidden), inplace=True)
        inner = F.relu(self.norm2(self.conv1(active)), inplace=True)
        inner = F.relu(self.norm3(self.conv2(inner)), inplace=True)
        change: Tensor = self.conv3(inner)
        return change + (hidden if self.projection is None else self.projection(active))


def wide_stage(channels: int, out: int, units: int, stride: int = 1, dropout: float = 0.0) -> nn.Sequential:
    """``units`` wide units, of which the first changes ``(B, channels, H, W)`` to the stage's shape."""
    first = WideUnit(channels, out, stride, dropout)
    return nn.Sequential(first, *(WideUnit(out, out, 1, dropout) for _ in range(units - 1)))


def bottleneck_stage(channels: int, inner: int, out: int, units: int, stride: int = 1) -> nn.Sequential:
    """``units`` bottlenecks, of which the first changes ``(B, channels, H, W)`` to the stage's shape."""
    first = Bottleneck(channels, inner, out, stride)
    return nn.Sequential(first, *(Bottleneck(out, inner, out) for _ in range(units - 1)))


def wide_resnet(depth: int, width: int, channels: int, classes: int, dropout: float = 0.0) -> Frame:
    """Wide-ResNet of depth 6n + 4 (Zagoruyko and Komodakis 2016): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n units with 16, 32 and 64 times ``width`` channels; the second and third halve the image.
    Initialized as wide-residual-networks' ``MSRinit`` and ``FCinit``, with BatchNorm gains of 1.
    """
    units = (depth - 4) // 6
    widths = (16, 16 * width, 32 * width, 64 * width)
    stages = [wide_stage(widths[i], widths[i + 1], units, 1 if i == 0 else 2, dropout) for i in range(3)]
    return Frame(channels, 16, stages, norm_relu(widths[3]), widths[3], classes)


def preactivation_resnet(depth: int, channels: int, classes: int) -> Frame:
    """Pre-activation ResNet of depth 9n + 2 (He et al. 2016): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n bottlenecks with 16, 32 and 64 inner and four times as many outer channels; the second and third
    halve the image. Initialized as resnet-1k-layers' ``ConvInit`` and ``BNInit``.
    """
    units = (depth - 2) // 9
    widths = (16, 64, 128, 256)
    stages = [
        bottleneck_stage(widths[i], widths[i + 1] // 4, widths[i + 1], units, 1 if i == 0 else 2)
        for i in range(3)
    ]
    return Frame(channels, 16, stages, norm_relu(widths[3]), widths[3], classes)


def _projection(channels: int, out: int, stride: int) -> nn.Conv2d | None:
    """The 1x1 convolution of a shortcut that changes shape; nothing where it does not."""
    if channels == out and stride == 1:
        return None
    return nn.Conv2d(channels, out, 1, stride, bias=False)
