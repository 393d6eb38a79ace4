"""Resampling of boxes of pictures: exact, so that every implementation, device and batch gives the same bytes.

A box of ``h × w`` pixels of a picture becomes ``H × W`` pixels by an antialiased triangle ("bilinear") filter with integer
weights, one axis after the other. Where a box of length ``L`` is shown in ``n`` pixels, with ``m = max(L, n)``, source pixel
``i`` of the box has in output pixel ``x`` the weight

    w = max(0, 2·m − |(2i + 1)·n − (2x + 1)·L|),    0 ≤ i < L,  0 ≤ x < n.

With ``s``, the sum of the weights of ``x``, it is quantized to 16 bits as ``q = (2·w·2^16 + s) div 2s``, and what the sum of
all ``q`` lacks to 2^16 (it may be negative) is added to the ``q`` of the largest ``w``, the first one of equals. A box that is
as long as its output has the weight 2^16 on its own pixel: nothing changes.

First all rows of the box are resampled horizontally, then all columns vertically. Both passes give
``(Σ q·p + 2^15) >> 16``, which is kept as uint8. A view is mirrored last. A box may reach outside of its picture; what it shows
there is the picture mirrored without its edge pixel ("reflect", as numpy pads) or 0 ("zero").

**Why the bits are the same everywhere.** A box is at most 255 times as long as its output (longer ones are refused, see
``pictures.require_reach``), so no ``q`` is negative: what is
missing is at most half of one for each of the 2·L/n taps, and the largest ``q`` is about 2^16·n/L. Then all partial sums are
below 255·2^16 + 2^15 < 2^24, so that float32 sums are exact in any order, with fused multiply-adds or without, on every device.
``numba_resample`` and ``triton_resample`` give the same bytes by integer sums; ``tests/views/test_resample.py`` proves it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import embedding_bag

Mode = Literal["reflect", "zero"]

BITS = 16
# Float32 numbers of a block of rows while it is resampled horizontally: they stay in the CPU's cache.
_BLOCK = 1 << 18


def most_taps(length: int, size: int) -> int:
    """Return how many pixels of a box of this length an output pixel can see at most.

    >>> most_taps(400, 224), most_taps(224, 224), most_taps(30, 224)
    (4, 2, 2)
    """
    return -(-2 * max(length, size) // size)


def taps(lengths: torch.Tensor, size: int, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quantized weights of boxes along one axis.

    Args:
        lengths: The boxes' lengths in pixels, int64 (B,), on any device; nothing waits for it.
        size: The number of output pixels.
        most: At least ``most_taps`` of the longest box.

    Returns:
        The first source pixel that an output pixel sees, int64 (B, size), and the weights of this one and those after it,
        int64 (B, size, most). Weights of pixels after the box are 0.
    """
    length = lengths.view(-1, 1, 1)
    reach = 2 * length.clamp(min=size)
    center = (2 * torch.arange(size, device=lengths.device).view(-1, 1) + 1) * length
    first = ((center - reach - size).div_(2 * size, rounding_mode="floor") + 1).clamp_(min=0)
    pixel = first + torch.arange(most, device=lengths.device)
    exact = (reach - ((2 * pixel + 1).mul_(size) - center).abs_()).clamp_(min=0).mul_(pixel < length)
    total = exact.sum(-1, keepdim=True)
    weights = ((exact << (BITS + 1)) + total).div_(2 * total, rounding_mode="floor")
    missing = (1 << BITS) - weights.sum(-1, keepdim=True)
    # argmax does not promise the first of equals: count the taps before the largest.
    largest = (exact.amax(-1, keepdim=True) == exact).to(torch.uint8).argmax(-1, keepdim=True)
    return first.squeeze(-1), weights.scatter_add_(-1, largest, missing)


def seen(
    starts: torch.Tensor, lengths: torch.Tensor, sides: torch.Tensor, size: int, most: int, mode: Mode
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what views show of their pictures along one axis; nothing waits for the device.

    Args:
        starts: Where the boxes begin, int64 (B,).
        lengths: Theirs, as ``taps``.
        sides: The pictures' lengths in pixels, int64 (B,).
        size: As ``taps``.
        most: As ``taps``.
        mode: What is outside of a picture.

    Returns:
        Pixels of the picture and their weights, both int64 (B, size, most). Pixels that do not count have the weight 0.
    """
    first, weights = taps(lengths, size, most)
    pixel = first.unsqueeze(-1) + torch.arange(most, device=lengths.device)
    place = pixel.minimum(lengths.view(-1, 1, 1) - 1).add_(starts.view(-1, 1, 1))
    side = sides.view(-1, 1, 1)
    if mode == "zero":
        weights.mul_((place >= 0) & (place < side))
        return place.clamp_(min=0).minimum(side - 1), weights
    turn = (2 * (side - 1)).clamp_(min=1)
    place.remainder_(turn)
    return place.minimum(turn - place), weights


def resample(
    flat: torch.Tensor,
    offsets: torch.Tensor,
    heights: torch.Tensor,
    widths: torch.Tensor,
    channels: int,
    boxes: torch.Tensor,
    flips: torch.Tensor,
    size: tuple[int, int],
    mode: Mode,
) -> torch.Tensor:
    """Return views of pictures, by torch alone, one view after the other.

    Args:
        flat: All pictures, uint8, each (height, width, channels); all tensors are on one device.
        offsets: Where the pictures of the batch begin in ``flat``, int64 (B,).
        heights: Theirs in pixels, integers (B,).
        widths: Theirs, as ``heights``.
        channels: Of every picture.
        boxes: Top, left, height and width of the box that each view shows, integers (B, 4), sides of at least 1.
        flips: Nonzero where a view is mirrored, (B,).
        size: Height and width of the views.
        mode: What is outside of a picture.

    Returns:
        The views, uint8 (B, H, W, channels). Beside it, memory holds two copies of a box at float32, one of them narrowed.
    """
    rows = _Axis(boxes[:, 0], boxes[:, 2], heights, size[0], mode)
    columns = _Axis(boxes[:, 1], boxes[:, 3], widths, size[1], mode)
    out = torch.empty((len(boxes), *size, channels), dtype=torch.uint8, device=flat.device)
    numbers = zip(*(column.tolist() for column in (offsets, heights, widths, flips)), strict=True)
    for view, (offset, height, width, flip) in enumerate(numbers):
        picture = flat[offset : offset + height * width * channels].view(height, width, channels)
        (top, bottom, *vertical), (left, right, *horizontal) = rows.of(view), columns.of(view, flip)
        narrow = _narrowed(picture[top:bottom, left:right], *horizontal)
        out[view] = _summed(narrow, *vertical).view(*size, channels)
    return out


class _Axis:
    """What the views of a batch show along one axis."""

    def __init__(
        self, starts: torch.Tensor, lengths: torch.Tensor, sides: torch.Tensor, size: int, mode: Mode
    ) -> None:
        self._size = size
        self._spans: list[list[int]] = torch.stack([starts, lengths, sides], 1).tolist()
        most = most_taps(max((length for _, length, _ in self._spans), default=1), size)
        self._places, weights = seen(starts.long(), lengths.long(), sides.long(), size, most, mode)
        self._weights = weights.float()

    def of(self, view: int, flip: bool = False) -> tuple[int, int, torch.Tensor, torch.Tensor]:
        """Return the part of the picture that is read: begin, end, pixels in it and their weights, (size, taps) both."""
        start, length, side = self._spans[view]
        if start < 0 or start + length > side:
            start, length = 0, side
        count = most_taps(self._spans[view][1], self._size)
        places, weights = self._places[view, :, :count] - start, self._weights[view, :, :count]
        if flip:  # the last pixel first
            places, weights = places.flip(0), weights.flip(0)
        return start, start + length, places, weights


def _narrowed(pixels: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return rows (h, w, C) resampled horizontally, float32 (h, W·C).

    A block of rows is turned so that sums are over rows of memory, and then turned back.
    """
    height, width, channels = pixels.shape
    narrow = torch.empty((height, len(columns) * channels), device=pixels.device)
    block = max(1, _BLOCK // (width * channels))
    for start in range(0, height, block):
        part = pixels[start : start + block]
        turned = torch.empty((width, channels, len(part)), device=pixels.device).copy_(part.permute(1, 2, 0))
        summed = _summed(turned.flatten(1), columns, weights)
        narrow[start : start + block] = summed.view(-1, len(part)).t()
    return narrow


def _summed(rows: torch.Tensor, which: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return ``(Σ weight · row + 2^15) >> 16`` of float32 rows (L, ·), float32 (n, ·)."""
    total = embedding_bag(which, rows, per_sample_weights=weights, mode="sum")
    return total.add_(1 << (BITS - 1)).mul_(2.0**-BITS).floor_()
