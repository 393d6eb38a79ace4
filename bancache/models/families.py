"""Families of residual networks, and a convolutional model that learns 8x8 digits in seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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

    def __init__(self, channels: int, out: int, stride: int = 1, *, inner: int) -> None:
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


class BasicUnit(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN beside a shortcut, then ReLU (He et al. 2015, Deep Residual Learning).

    Takes ``(B, channels, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``. The shortcut has no parameters
    (option A, which the authors use on CIFAR): every second pixel, channels filled up with zeros.
    """

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.stride = stride
        self.missing = out - channels

    def forward(self, hidden: Tensor) -> Tensor:
        """The unit's output; see the class for shapes."""
        inner = F.relu(self.norm1(self.conv1(hidden)), inplace=True)
        change: Tensor = self.norm2(self.conv2(inner))
        if self.missing:
            before = self.missing // 2
            every = hidden[:, :, :: self.stride, :: self.stride]
            hidden = F.pad(every, (0, 0, 0, 0, before, self.missing - before))
        return F.relu(change + hidden)


def residual_stage(
    unit: Callable[[int, int, int], nn.Module], channels: int, out: int, units: int, stride: int = 1
) -> nn.Sequential:
    """``units`` of one kind, of which the first changes ``(B, channels, H, W)`` to the stage's shape."""
    return nn.Sequential(unit(channels, out, stride), *(unit(out, out, 1) for _ in range(units - 1)))


def wide_resnet(depth: int, width: int, channels: int, classes: int, dropout: float = 0.0) -> Frame:
    """Wide-ResNet of depth 6n + 4 (Zagoruyko and Komodakis 2016): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n units with 16, 32 and 64 times ``width`` channels; the second and third halve the image.
    """
    units = (depth - 4) // 6
    widths = (16, 16 * width, 32 * width, 64 * width)
    unit = partial(WideUnit, dropout=dropout)
    stages = [residual_stage(unit, widths[i], widths[i + 1], units, min(i + 1, 2)) for i in range(3)]
    return Frame(channels, 16, stages, norm_relu(widths[3]), widths[3], classes)


def preactivation_resnet(depth: int, channels: int, classes: int) -> Frame:
    """Pre-activation ResNet of depth 9n + 2 (He et al. 2016): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n bottlenecks with 16, 32 and 64 inner and four times as many outer channels; the second and third
    halve the image.
    """
    units = (depth - 2) // 9
    widths = (16, 64, 128, 256)
    stages = []
    for i in range(3):
        unit = partial(Bottleneck, inner=widths[i + 1] // 4)
        stages.append(residual_stage(unit, widths[i], widths[i + 1], units, min(i + 1, 2)))
    return Frame(channels, 16, stages, norm_relu(widths[3]), widths[3], classes)


def resnet(depth: int, channels: int, classes: int) -> Frame:
    """ResNet of depth 6n + 2 (He et al. 2015, section 4.2): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n units with 16, 32 and 64 channels; the second and third halve the image.
    """
    units = (depth - 2) // 6
    widths = (16, 16, 32, 64)
    stages = [residual_stage(BasicUnit, widths[i], widths[i + 1], units, min(i + 1, 2)) for i in range(3)]
    return Frame(channels, 16, [norm_relu(16), *stages], nn.Identity(), 64, classes)


def convnet(width: int, channels: int, classes: int) -> Frame:
    """Three 3x3 convolutions of ``width``, twice and four times as many channels, each with BatchNorm and ReLU.

    One 2x2 maximum halves the image before the third. It is from no paper: it is for a first try.
    """
    stages = [
        nn.Sequential(*norm_relu(width), nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)),
        nn.Sequential(
            *norm_relu(2 * width), nn.MaxPool2d(2), nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        ),
    ]
    return Frame(channels, width, stages, norm_relu(4 * width), 4 * width, classes)


def _projection(channels: int, out: int, stride: int) -> nn.Conv2d | None:
    """The 1x1 convolution of a shortcut that changes shape; nothing where it does not."""
    if channels == out and stride == 1:
        return None
    return nn.Conv2d(channels, out, 1, stride, bias=False)
