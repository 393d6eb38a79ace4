"""Resampling by a Triton kernel: the bytes of ``bancache.views.resample``, a batch in one launch.

Each lane writes one byte of a view: for each row that it sees, the weighted sum of the pixels of this row, rounded, and then
the weighted sum of these. So nothing lies between the passes in memory, at any size of picture, and nothing is synchronized. A
narrowed pixel is computed once for each of the few rows of the view that see it. The tables of pixels and weights come from
torch, a few hundred kilobytes a batch; with them the kernel needs neither divisions nor a case for edges.

What to expect of an H100 at 224 × 224 × 3 from boxes of 400 × 380, on paper: such a view reads 456 KB and writes 151 KB, so
50,000 a second are 30 GB/s, a hundredth of the memory's 3.35 TB/s. A byte has 4 × 4 taps of a dozen instructions, so a view has
0.9 million instructions of a warp, and 50,000 a second are a twentieth of what 132 multiprocessors issue. The first-level cache
is the limit: two loads a tap, of four lines each, are 0.6 million a view, and 132 caches that serve one line a cycle could do
370,000 views a second. Time grows with the square of the reduction: boxes four times as long as the view take 70,000 to there.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from bancache.views.resample import Mode, seen

if find_spec("triton") is not None:  # the kernel's source refers to ``tl`` when it is compiled
    import triton
    import triton.language as tl

# Eight bytes per thread.
SIZE, WARPS = 1024, 4


def resample_kernel(  # type: ignore[no-untyped-def]  # triton reads the names, not the types
    flat,
    offsets,
    widths,
    boxes,
    flips,
    rows,
    row_weights,
    columns,
    column_weights,
    out,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write ``SIZE`` bytes of one view; tables are int32 (B, taps, H) and (B, taps, W), ``out`` is (B, H, W, C)."""
    view = tl.program_id(0).to(tl.int64)
    picture = flat + tl.load(offsets + view)
    line = tl.load(widths + view).to(tl.int32) * CHANNELS
    # Only a view that is smaller than its box has more than two taps.
    tall = tl.maximum(tl.load(boxes + 4 * view + 2).to(tl.int32), HEIGHT)
    wide = tl.maximum(tl.load(boxes + 4 * view + 3).to(tl.int32), WIDTH)
    row_taps = tl.minimum((2 * tall + HEIGHT - 1) // HEIGHT, ROW_TAPS)
    column_taps = tl.minimum((2 * wide + WIDTH - 1) // WIDTH, COLUMN_TAPS)
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = place < HEIGHT * WIDTH * CHANNELS
    channel, pixel = place % CHANNELS, place // CHANNELS
    y, x = tl.minimum(pixel // WIDTH, HEIGHT - 1), pixel % WIDTH
    x = tl.where(tl.load(flips + view) != 0, WIDTH - 1 - x, x)
    y_table, x_table = view * (ROW_TAPS * HEIGHT), view * (COLUMN_TAPS * WIDTH)
    total = tl.full((SIZE,), 1 << 15, tl.int32)
    for row_tap in range(row_taps):
        row = tl.load(rows + y_table + row_tap * HEIGHT + y) * line + channel
        narrow = tl.full((SIZE,), 1 << 15, tl.int32)
        for column_tap in range(column_taps):
            column = tl.load(columns + x_table + column_tap * WIDTH + x)
            weight = tl.load(column_weights + x_table + column_tap * WIDTH + x)
            narrow += weight * tl.load(picture + (row + column * CHANNELS)).to(tl.int32)
        total += tl.load(row_weights + y_table + row_tap * HEIGHT + y) * (narrow >> 16)
    tl.store(out + view * (HEIGHT * WIDTH * CHANNELS) + place, (total >> 16).to(tl.uint8), mask=inside)


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
    *,
    most: tuple[int, int],
) -> torch.Tensor:
    """Return views as ``bancache.views.resample.resample`` does; nothing waits for the device.

    ``most`` is at least ``most_taps`` of the longest box, vertically and horizontally. Pictures have less than 2^31 bytes each.
    """
    tables = []
    for axis, sides in enumerate((heights, widths)):
        starts, lengths = boxes[:, axis].long(), boxes[:, axis + 2].long()
        pair = seen(starts, lengths, sides.long(), size[axis], most[axis], mode)
        # Neighboring lanes read neighboring entries.
        tables += [table.to(torch.int32).transpose(1, 2).contiguous() for table in pair]
    out = torch.empty((len(boxes), *size, channels), dtype=torch.uint8, device=flat.device)
    grid = (len(boxes), -(-size[0] * size[1] * channels // SIZE))
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _compiled()[grid](
            *(flat, *(part.contiguous() for part in (offsets, widths, boxes, flips)), *tables, out),
            HEIGHT=size[0],
            WIDTH=size[1],
            CHANNELS=channels,
            ROW_TAPS=most[0],
            COLUMN_TAPS=most[1],
            SIZE=SIZE,
            num_warps=WARPS,
        )
    return out


@cache
def _compiled() -> Any:
    """Return the kernel for launching; Triton compiles it at the first batch of each size."""
    return triton.jit(resample_kernel)
