"""Small models: ResNet for CIFAR, and a convolutional model that learns 8x8 digits in seconds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bancache.models.match_frame import Frame, norm_relu


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


def resnet(depth: int, channels: int, classes: int) -> Frame:
    """ResNet of depth 6n + 2 (He et al. 2015, section 4.2): ``(B, channels, H, W)`` to ``(B, classes)``.

    Stages of n units with 16, 32 and 64 channels; the second and third halve the image. Initialized as
    fb.resnet.torch's ``ConvInit`` and ``BNInit``.
    """
    units = (depth - 2) // 6
    widths = (16, 16, 32, 64)
    stages = [
        nn.Sequential(
            BasicUnit(widths[i], widths[i + 1], 1 if i == 0 else 2),
            *(BasicUnit(widths[i + 1], widths[i + 1]) for _ in range(units - 1)),
        )
        for i in range(3)
    ]
    return Frame(channels, 16, [norm_relu(16), *stages], nn.Identity(), 64, classes)


def convnet(width: int, channels: int, classes: int) -> Frame:
    """Three 3x3 convolutions of ``width``, twice and four times as many channels, each with BatchNorm and ReLU.

    ``(B, channels, H, W)`` to ``(B, classes)``; one 2x2 maximum halves the image before the third. It is
    from no paper: it is for a first try.
    """
    stages = [
        nn.Sequential(*norm_relu(width), nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)),
        nn.Sequential(
            *norm_relu(2 * width), nn.MaxPool2d(2), nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        ),
    ]
    return Frame(channels, width, stages, norm_relu(4 * width), 4 * width, classes)
