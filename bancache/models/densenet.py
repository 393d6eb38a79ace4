"""DenseNet-BC (Huang et al. 2017), its blocks, and the channels that match models take from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bancache.models.match_frame import Frame, brc, norm_relu

# Depth and growth of the rows that have a third 1x1: without it they count 6 % less than the paper prints.
THIRD_1X1 = {(90, 60), (80, 80), (80, 120)}
# The paper prints depth 112 or 116 where its parameter count is that of depth 106.
_TRUE_DEPTH = {(112, 33): 106}


@dataclass(frozen=True)
class Skeleton:
    """Channels around the three blocks, the same in a DenseNet and the match models that follow it.

    Attributes:
        entering: Channels ``h0_i`` that enter block i; the first is the output of the first layer.
        leaving: Channels ``h1_i`` after the 1x1 of block i; the last is the input of the last layer.
    """

    entering: tuple[int, int, int]
    leaving: tuple[int, int, int]


class DenseUnit(nn.Module):
    """BRC(1x1 to 4 growth) and BRC(3x3 to growth) of all earlier outputs (Huang et al. 2017, DenseNet-B)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bottleneck = brc(1, channels, 4 * growth)
        self.conv = brc(3, 4 * growth, growth)

    def forward(self, *hidden: Tensor) -> Tensor:
        """``(B, growth, H, W)`` from tensors ``(B, C_j, H, W)`` whose channels sum to the unit's."""
        out: Tensor = self.conv(self.narrow(*hidden))
        return out

    def narrow(self, *hidden: Tensor) -> Tensor:
        """The first half, ``(B, 4 growth, H, W)``, whose activations grow with the unit's position in the block."""
        out: Tensor = self.bottleneck(torch.cat(hidden, dim=1))
        return out


class CheckpointedDenseUnit(DenseUnit):
    """A dense unit that recomputes its concatenated and normalized input in the backward pass.

    Memory grows with a block's units instead of their square (Pleiss et al. 2017). Values, gradients and BatchNorm's
    running statistics are those of ``DenseUnit``, bit for bit (``tests/models/test_densenet.py``).
    """

    def forward(self, *hidden: Tensor) -> Tensor:
        """``(B, growth, H, W)`` from tensors ``(B, C_j, H, W)`` whose channels sum to the unit's."""
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        # The compiler updates the statistics once and supports no contexts.
        if not torch.compiler.is_compiling():
            options["context_fn"] = lambda: (nullcontext(), _frozen_statistics(self.bottleneck[0]))
        out: Tensor = self.conv(checkpoint(self.narrow, *hidden, **options))
        return out


class DenseBlock(nn.Module):
    """``units`` dense units: ``(B, channels, H, W)`` to ``(B, channels + units * growth, H, W)``."""

    def __init__(self, channels: int, growth: int, units: int, *, checkpointed: bool = False) -> None:
        super().__init__()
        unit = CheckpointedDenseUnit if checkpointed else DenseUnit
        self.units = nn.ModuleList(unit(channels + i * growth, growth) for i in range(units))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the block's input and the output of each unit, concatenated."""
        outputs = [hidden]
        for unit in self.units:
            outputs.append(unit(*outputs))
        return torch.cat(outputs, dim=1)


def densenet(
    depth: int, growth: int, channels: int, classes: int, *, checkpoint_activations: bool = False
) -> Frame:
    """DenseNet-BC for small images: ``(B, channels, H, W)`` to ``(B, classes)``.

    Three blocks of floor((depth - 4) / 6) units after a 3x3 convolution to 2 * growth channels; a BRC(1x1) that halves
    the channels and a 2x2 average follow the first two blocks, and in three rows of "Born Again Neural Networks" a
    BRC(1x1) the third. Initialized as DenseNet's own ``ConvInit`` and ``BNInit``.
    """
    units = (_TRUE_DEPTH.get((depth, growth), depth) - 4) // 6
    skeleton = densenet_skeleton(depth, growth)
    parts: list[tuple[nn.Module, nn.Module]] = []
    for entering, leaving in zip(skeleton.entering, skeleton.leaving, strict=True):
        block = DenseBlock(entering, growth, units, checkpointed=checkpoint_activations)
        out = entering + units * growth
        parts.append((block, brc(1, out, leaving) if leaving != out else nn.Identity()))
    return match_model(skeleton, parts, channels, classes)


def densenet_skeleton(depth: int, growth: int) -> Skeleton:
    """Return the channels around the blocks of ``densenet-bc-depth-growth``.

    >>> densenet_skeleton(90, 60)
    Skeleton(entering=(120, 480, 660), leaving=(480, 660, 750))
    """
    units = (_TRUE_DEPTH.get((depth, growth), depth) - 4) // 6
    first = 2 * growth
    second = (first + units * growth) // 2
    third = (second + units * growth) // 2
    last = third + units * growth
    return Skeleton(
        (first, second, third), (second, third, last // 2 if (depth, growth) in THIRD_1X1 else last)
    )


def match_model(
    skeleton: Skeleton, parts: Iterable[tuple[nn.Module, nn.Module]], channels: int, classes: int
) -> Frame:
    """Return the initialized model of three blocks with their transitions; 2x2 averages follow the first two."""
    stages = []
    for i, (block, transition) in enumerate(parts):
        pool = nn.AvgPool2d(2) if i < 2 else nn.Identity()
        stages.append(nn.Sequential(OrderedDict(block=block, transition=transition, pool=pool)))
    out = skeleton.leaving[-1]
    return Frame(channels, skeleton.entering[0], stages, norm_relu(out), out, classes)


@contextmanager
def _frozen_statistics(norm: nn.Module) -> Iterator[None]:
    """Repeat a forward pass without updating the running statistics twice."""
    assert isinstance(norm, nn.BatchNorm2d)
    momentum, batches = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, batches
