"""The paper's Match students: the hidden shapes of a DenseNet with other blocks (Table 2).

With the teacher's channels h0_i entering block i and h1_i after its 1x1, a student is a 3x3 convolution to h0_1, for each i
its own block, BRC(1x1 to h1_i) and, but for the last, a 2x2 average; then BatchNorm, ReLU, average, classifier. The paper
prints only the parameter counts; the rest is inferred from them. All are initialized as DenseNets are.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

from torch import nn

from bancache.errors import UsageError
from bancache.models.densenet import DenseBlock, Skeleton, match_model
from bancache.models.families import Bottleneck, WideUnit, residual_stage
from bancache.models.match_frame import Frame, brc

# Inner widths of the two printed rows, (units, ratio): fitted to the printed counts, which no simple rule gives.
_FITTED = {(14, Fraction(1)): (108, 149, 169), (14, Fraction(1, 2)): (73, 100, 114)}
_FITTED_STREAMS = {(480, 660, 750), (240, 330, 375)}


def match_wide_resnet(
    units: int, ratio: Fraction, skeleton: Skeleton, channels: int, classes: int, dropout: float = 0.0
) -> Frame:
    """Match-Wide-ResNet-n-r: blocks of n wide units with floor(r * h1_i) channels."""
    unit = partial(WideUnit, dropout=dropout)
    sizes = zip(skeleton.entering, _streams(ratio, skeleton), skeleton.leaving, strict=True)
    parts = [(residual_stage(unit, h0, c, units), brc(1, c, h1)) for h0, c, h1 in sizes]
    return match_model(skeleton, parts, channels, classes)


def match_preresnet(units: int, ratio: Fraction, skeleton: Skeleton, channels: int, classes: int) -> Frame:
    """Match-Pre-ResNet-n-r: blocks of n bottlenecks with floor(r * h1_i) channels, a quarter of that inside.

    The paper's two rows, 14-1 and 14-0.5, have fitted inner widths in place of the quarter.
    """
    streams = _streams(ratio, skeleton)
    quarters = tuple(max(1, stream // 4) for stream in streams)
    inner = _FITTED.get((units, ratio), quarters) if streams in _FITTED_STREAMS else quarters
    parts = []
    for h0, c, h1, width in zip(skeleton.entering, streams, skeleton.leaving, inner, strict=True):
        parts.append((residual_stage(partial(Bottleneck, inner=width), h0, c, units), brc(1, c, h1)))
    return match_model(skeleton, parts, channels, classes)


def match_densenet(
    sizes: tuple[int, Fraction, Fraction],
    skeleton: Skeleton,
    channels: int,
    classes: int,
    *,
    checkpoint_activations: bool = False,
) -> Frame:
    """Match-DenseNet-a-b-c: blocks of a dense units that start from b * h0_i channels and end near c * h1_i.

    Where b is not 1 a BRC(1x1) brings h0_i to b * h0_i, in the first block too. The growth is
    floor((c * h1_i - b * h0_i) / a); below one channel it is a UsageError.
    """
    units, start, end = sizes
    parts = []
    for i, (h0, h1) in enumerate(zip(skeleton.entering, skeleton.leaving, strict=True)):
        width = int(start * h0)
        growth = int((end * h1 - start * h0) // units)
        if growth < 1 or width < 1:
            what = f"block {i + 1} starts from {width} channels and would grow by {growth} a unit"
            raise UsageError(what, hint="use fewer units (the first size), or a larger last size")
        block: nn.Module = DenseBlock(width, growth, units, checkpointed=checkpoint_activations)
        if start != 1:
            block = nn.Sequential(brc(1, h0, width), block)
        parts.append((block, brc(1, width + units * growth, h1)))
    return match_model(skeleton, parts, channels, classes)


def _streams(ratio: Fraction, skeleton: Skeleton) -> tuple[int, ...]:
    """Channels c_i = floor(r * h1_i) of the residual stream, at least one."""
    return tuple(max(1, int(ratio * h1)) for h1 in skeleton.leaving)
