"""Operations, erasing and mixing of a batch of views, by torch alone.

What they do is defined in ``operations``. All arithmetic is of integers, so a CPU and a GPU give the same bits, as do
``numba_operations`` and ``triton_operations``; ``tests/views/test_operations.py`` shows it. A CPU computes each operation
for the views that have it. A GPU computes all operations for all views, since to group them it would have to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor

from bancache.views.operations import (
    AUTOCONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    EQUALIZE,
    GRAY,
    INVERT,
    MOST_HALF_DEGREES,
    ONE,
    OUTSIDE,
    POSTERIZE,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    SOLARIZE,
    SOLARIZE_ADD,
    TRANSLATE_X,
    TRANSLATE_Y,
    turns,
)


def apply(views: Tensor, operations: Tensor) -> Tensor:
    """Return views after their operations, uint8 (B, H, W, C); ``operations`` are integers (B, 2·slots)."""
    step = grouped if views.device.type == "cpu" else masked
    for slot in range(0, operations.shape[1], 2):
        views = step(views, operations[:, slot].long(), operations[:, slot + 1].to(torch.int32))
    return views


def grouped(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    """Return views after one operation each, computed for the views that have it; int64 (B,) and int32 (B,)."""
    out = views.clone()
    for members, changed in _FAMILIES:
        rows = _belong(numbers, members).nonzero()[:, 0]
        if len(rows):
            out[rows] = changed(views[rows], numbers[rows], magnitudes[rows])
    return out


def masked(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    """Return what ``grouped`` returns, without knowing on the host which operations there are."""
    out = views
    for members, changed in _FAMILIES:
        chosen = _belong(numbers, members)[:, None, None, None]
        out = torch.where(chosen, changed(views, numbers, magnitudes), out)
    return out


def erase(views: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Return views whose box (top, left, height, width) is filled with a color.

    Args:
        views: Uint8 (B, H, W, C).
        boxes: Integers (B, 4), in 2^16ths of a view's sides; a height of 0 erases nothing.
        fill: Integers (B,): red, green and blue in bits 0, 8 and 16; a gray view takes the lowest.
    """
    shifts = 8 * torch.arange(views.shape[3], device=views.device)
    colors = ((fill.long()[:, None] >> shifts) & 255).to(torch.uint8)
    return torch.where(_inside(views, boxes), colors[:, None, None], views)


def mix(views: Tensor, partners: Tensor, share: Tensor, cut: Tensor) -> Tensor:
    """Return views that show their partner inside of the cut or, if its height is 0, blended with them.

    Args:
        views: Uint8 (B, H, W, C).
        partners: As ``views``.
        share: Integers (B,): how much of a blend is the view itself, in 256ths.
        cut: Integers (B, 4), in 2^16ths of a view's sides.
    """
    factor = share.to(torch.int32)[:, None, None, None]
    blended = ((factor * views + (ONE - factor) * partners + ONE // 2) >> 8).to(torch.uint8)
    shown = torch.where(_inside(views, cut), partners, views)
    return torch.where((cut[:, 2] == 0)[:, None, None, None], blended, shown)


def _belong(numbers: Tensor, members: tuple[int, ...]) -> Tensor:
    return torch.stack([numbers == member for member in members]).any(0)


def _inside(views: Tensor, boxes: Tensor) -> Tensor:
    """Return which pixels lie in a box, bool (B, H, W, 1)."""
    boxes = boxes.long()
    found = []
    for axis, side in enumerate(views.shape[1:3]):
        start, stop = boxes[:, axis], boxes[:, axis] + boxes[:, axis + 2]
        first, last = ((edge * side + (1 << 15) >> 16)[:, None] for edge in (start, stop))
        place = torch.arange(side, device=views.device)
        found.append((place >= first) & (place < last))
    rows, columns = found
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _blend(factor: Tensor, value: Tensor, other: Tensor | int) -> Tensor:
    """Return blends of int32, before they become uint8."""
    return ((factor * value + (ONE - factor) * other + ONE // 2) >> 8).clamp_(0, 255)


def _gray(views: Tensor) -> Tensor:
    """Return the gray of each pixel, int32 (B, H, W, 1)."""
    if views.shape[3] == 1:
        return views.to(torch.int32)
    red, green, blue = (views[..., channel : channel + 1].to(torch.int32) for channel in range(3))
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue + (1 << 15)) >> 16


def _looked_up(views: Tensor, tables: Tensor) -> Tensor:
    """Return the entries of tables (B, 1 or C, 256) for the values of views."""
    batch, channels = views.shape[0], views.shape[3]
    flat = views.permute(0, 3, 1, 2).reshape(batch, channels, -1).long()
    found = tables.to(torch.uint8).expand(batch, channels, 256).gather(2, flat)
    return found.view(batch, channels, *views.shape[1:3]).permute(0, 2, 3, 1)


def _simple(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    """The operations whose table depends on nothing but the magnitude."""
    value = torch.arange(256, dtype=torch.int32, device=views.device)
    magnitude, number = magnitudes[:, None], numbers[:, None]
    # Magnitudes of other operations are no bits: on a GPU they are here, too.
    low = torch.bitwise_left_shift(torch.ones_like(magnitude), (8 - magnitude).clamp(0, 8)) - 1
    tables = 255 - value.expand(len(views), 256)
    tables = torch.where((number == SOLARIZE) & (value < magnitude), value, tables)
    added = torch.where(value < 128, (value + magnitude).clamp(0, 255), value)
    for operation, table in (
        (POSTERIZE, value & ~low),
        (SOLARIZE_ADD, added),
        (BRIGHTNESS, _blend(magnitude, value, 0)),
    ):
        tables = torch.where(number == operation, table, tables)
    return _looked_up(views, tables[:, None])


def _contrast(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    pixels = views.shape[1] * views.shape[2]
    total = _gray(views).flatten(1).sum(1)
    mean = ((2 * total + pixels) // (2 * pixels)).to(torch.int32)
    value = torch.arange(256, dtype=torch.int32, device=views.device)
    return _looked_up(views, _blend(magnitudes[:, None], value, mean[:, None])[:, None])


def _autocontrast(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    low, high = (part.to(torch.int32)[..., None] for part in torch.aminmax(views.flatten(1, 2), dim=1))
    value = torch.arange(256, dtype=torch.int32, device=views.device)
    stretched = (255 * (value - low) // (high - low).clamp_min(1)).clamp_(0, 255)
    return _looked_up(views, torch.where(high > low, stretched, value))


def _equalized(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    batch, channels = views.shape[0], views.shape[3]
    flat = views.permute(0, 3, 1, 2).reshape(batch, channels, -1).long()
    counts = torch.zeros(batch, channels, 256, dtype=torch.int32, device=views.device)
    counts.scatter_add_(2, flat, torch.ones((), dtype=torch.int32, device=views.device).expand_as(flat))
    below = counts.cumsum(2, dtype=torch.int32) - counts
    step = below.gather(2, flat.amax(2, keepdim=True)) // 255
    value = torch.arange(256, dtype=torch.int32, device=views.device)
    even = ((step // 2 + below) // step.clamp_min(1)).clamp_(0, 255)
    return _looked_up(views, torch.where(step > 0, even, value))


def _colored(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    factor = magnitudes[:, None, None, None]
    return _blend(factor, views.to(torch.int32), _gray(views)).to(torch.uint8)


def _sharpened(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    values = views.to(torch.int32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    inner = values[:, 1:-1, 1:-1]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * inner + 6) // 13
    out = views.clone()
    out[:, 1:-1, 1:-1] = _blend(magnitudes[:, None, None, None], inner, smooth).to(torch.uint8)
    return out


def _moved(views: Tensor, numbers: Tensor, magnitudes: Tensor) -> Tensor:
    """Rotate, shear and translate."""
    height, width = views.shape[1:3]
    number, magnitude = numbers[:, None, None], magnitudes[:, None, None]
    angle = (magnitude + MOST_HALF_DEGREES).clamp(0, 2 * MOST_HALF_DEGREES)
    cosine, sine = _turns(views.device)[torch.where(number == ROTATE, angle, MOST_HALF_DEGREES)].unbind(-1)
    dx = 2 * torch.arange(width, dtype=torch.int32, device=views.device) + 1 - width
    dy = (2 * torch.arange(height, dtype=torch.int32, device=views.device) + 1 - height)[:, None]
    p, q, r, s = (magnitude * (number == kind) for kind in (TRANSLATE_X, SHEAR_X, TRANSLATE_Y, SHEAR_Y))
    x = (cosine * dx + (q - sine) * dy + (width << 16) + 2 * p * width) >> 17
    y = ((sine + s) * dx + cosine * dy + (height << 16) + 2 * r * height) >> 17
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    place = (y * width + x).masked_fill_(outside, 0).flatten(1).long()
    found = views.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, views.shape[3]))
    return found.masked_fill_(outside.flatten(1)[..., None], OUTSIDE).view(views.shape)


@cache
def _turns(device: torch.device) -> Tensor:
    return torch.from_numpy(turns()).to(device)


_FAMILIES: Iterable[tuple[tuple[int, ...], Callable[[Tensor, Tensor, Tensor], Tensor]]] = (
    ((INVERT, POSTERIZE, SOLARIZE, SOLARIZE_ADD, BRIGHTNESS), _simple),
    ((CONTRAST,), _contrast),
    ((AUTOCONTRAST,), _autocontrast),
    ((EQUALIZE,), _equalized),
    ((COLOR,), _colored),
    ((SHARPNESS,), _sharpened),
    ((ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y), _moved),
)
