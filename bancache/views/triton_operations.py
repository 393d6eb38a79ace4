"""Triton kernels for what happens to views after resampling, on a CUDA device or under Triton's interpreter.

A slot of operations takes two kernels: one makes a table of 256 values for each view and channel, from a histogram or the
mean where the operation wants it; one writes the view. The last kernel erases, mixes and normalizes in one pass. The bits
are those of ``torch_operations``: ``tests/views/test_triton_operations.py`` compares them and looks at the machine code.

Rows of records may have any distance, so that columns of a batch's records are used where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from bancache.system.kernels import called_by_kernels
from bancache.views import operations as ops
from bancache.views.triton_renderer import KINDS

if find_spec("triton") is not None:  # the kernels' source refers to these names when it is compiled
    import triton
    import triton.language as tl

    (AUTOCONTRAST, EQUALIZE, INVERT, ROTATE, POSTERIZE, SOLARIZE, SOLARIZE_ADD, COLOR) = map(
        tl.constexpr, range(1, 9)
    )
    (CONTRAST, BRIGHTNESS, SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y) = map(
        tl.constexpr, range(9, 16)
    )
    RED, GREEN, BLUE = map(tl.constexpr, ops.GRAY)

BITS = "bfloat16-bits"  # as in triton_renderer: the interpreter truncates where a GPU rounds
SIZE, WARPS = 1024, 4


def tables_kernel(  # type: ignore[no-untyped-def]  # triton reads the names, not the types
    views, operations, distance, tables, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SIZE: tl.constexpr
):
    """Write what each value of one channel of one view becomes; ``tables`` is uint8 (B, C, 256)."""
    row, channel = tl.program_id(0).to(tl.int64), tl.program_id(1)
    operation, magnitude = tl.load(operations + row * distance), tl.load(operations + row * distance + 1)
    source = views + row * (PIXELS * CHANNELS)
    value = tl.arange(0, 256)
    table = value
    if (operation == AUTOCONTRAST) | (operation == EQUALIZE):
        counts = tl.zeros((256,), tl.int32)
        for start in range(0, PIXELS, SIZE):
            pixel = start + tl.arange(0, SIZE)
            seen = tl.load(source + pixel * CHANNELS + channel, mask=pixel < PIXELS, other=0)
            counts += tl.histogram(seen.to(tl.int32), 256, mask=pixel < PIXELS)
        low = tl.min(tl.where(counts > 0, value, 255), 0)
        high = tl.max(tl.where(counts > 0, value, 0), 0)
        if operation == AUTOCONTRAST:
            if low < high:
                table = 255 * tl.maximum(value - low, 0) // (high - low)
        else:
            below = tl.cumsum(counts, 0) - counts
            step = tl.sum(tl.where(value == high, below, 0), 0) // 255
            if step > 0:
                table = (step // 2 + below) // step
    elif operation == INVERT:
        table = 255 - value
    elif operation == POSTERIZE:
        table = value & (256 - (1 << (8 - magnitude)))
    elif operation == SOLARIZE:
        table = tl.where(value < magnitude, value, 255 - value)
    elif operation == SOLARIZE_ADD:
        table = tl.where(value < 128, value + magnitude, value)
    elif (operation == CONTRAST) | (operation == BRIGHTNESS):
        mean = 0
        if operation == CONTRAST:
            total = tl.zeros((), tl.int64)
            for start in range(0, PIXELS, SIZE):
                pixel = start + tl.arange(0, SIZE)
                gray = tl.load(source + pixel * CHANNELS, mask=pixel < PIXELS, other=0).to(tl.int32)
                if CHANNELS == 3:
                    green = tl.load(source + pixel * 3 + 1, mask=pixel < PIXELS, other=0).to(tl.int32)
                    blue = tl.load(source + pixel * 3 + 2, mask=pixel < PIXELS, other=0).to(tl.int32)
                    gray = (RED * gray + GREEN * green + BLUE * blue + 32768) >> 16
                total += tl.sum(gray, 0).to(tl.int64)
            mean = ((2 * total + PIXELS) // (2 * PIXELS)).to(tl.int32)
        table = (magnitude * value + (256 - magnitude) * mean + 128) >> 8
    table = tl.minimum(tl.maximum(table, 0), 255)
    tl.store(tables + (row * CHANNELS + channel) * 256 + value, table.to(tl.uint8))


def apply_kernel(  # type: ignore[no-untyped-def]
    views,
    operations,
    distance,
    tables,
    turns,
    out,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write ``SIZE`` values of one view after its operation."""
    row = tl.program_id(0).to(tl.int64)
    operation, magnitude = tl.load(operations + row * distance), tl.load(operations + row * distance + 1)
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = place < HEIGHT * WIDTH * CHANNELS
    channel, pixel = place % CHANNELS, place // CHANNELS
    y, x = pixel // WIDTH, pixel % WIDTH
    source = views + row * (HEIGHT * WIDTH * CHANNELS)
    value = tl.load(source + place, mask=inside, other=0).to(tl.int32)
    if operation == COLOR:
        if CHANNELS == 3:
            red = tl.load(source + pixel * 3, mask=inside, other=0).to(tl.int32)
            green = tl.load(source + pixel * 3 + 1, mask=inside, other=0).to(tl.int32)
            blue = tl.load(source + pixel * 3 + 2, mask=inside, other=0).to(tl.int32)
            gray = (RED * red + GREEN * green + BLUE * blue + 32768) >> 16
            value = (magnitude * value + (256 - magnitude) * gray + 128) >> 8
            value = tl.minimum(tl.maximum(value, 0), 255)
    elif operation == SHARPNESS:
        inner = inside & (y > 0) & (y < HEIGHT - 1) & (x > 0) & (x < WIDTH - 1)
        total = 4 * value + 6
        for neighbor in tl.static_range(9):
            step = ((neighbor // 3 - 1) * WIDTH + neighbor % 3 - 1) * CHANNELS
            total += tl.load(source + place + step, mask=inner, other=0).to(tl.int32)
        sharp = (magnitude * value + (256 - magnitude) * (total // 13) + 128) >> 8
        value = tl.where(inner, tl.minimum(tl.maximum(sharp, 0), 255), value)
    elif (operation == ROTATE) | (operation >= SHEAR_X):
        angle = tl.where(operation == ROTATE, magnitude + 270, 270)
        cosine, sine = tl.load(turns + 2 * angle), tl.load(turns + 2 * angle + 1)
        q = tl.where(operation == SHEAR_X, magnitude, -sine)
        r = tl.where(operation == SHEAR_Y, magnitude, sine)
        across = tl.where(operation == TRANSLATE_X, magnitude, 0) * (2 * WIDTH)
        down = tl.where(operation == TRANSLATE_Y, magnitude, 0) * (2 * HEIGHT)
        dx, dy = 2 * x + 1 - WIDTH, 2 * y + 1 - HEIGHT
        x = (cosine * dx + q * dy + (WIDTH * 65536 + across)) >> 17
        y = (r * dx + cosine * dy + (HEIGHT * 65536 + down)) >> 17
        seen = inside & (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
        value = tl.load(source + (y * WIDTH + x) * CHANNELS + channel, mask=seen, other=128).to(tl.int32)
    elif operation > 0:
        value = tl.load(tables + (row * CHANNELS + channel) * 256 + value, mask=inside, other=0).to(tl.int32)
    tl.store(out + row * (HEIGHT * WIDTH * CHANNELS) + place, value.to(tl.uint8), mask=inside)


def finish_kernel(  # type: ignore[no-untyped-def]
    views,
    partners,
    erased,
    partners_erased,
    mixing,
    distance,
    out,
    mean0,
    mean1,
    mean2,
    scale0,
    scale1,
    scale2,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    MIXED: tl.constexpr,
    KIND: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write ``SIZE`` outputs of one view; ``out`` is (B, H, W, C). ``distance`` is between two rows of the three records."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = place < HEIGHT * WIDTH * CHANNELS
    channel, pixel = place % CHANNELS, place // CHANNELS
    y, x = pixel // WIDTH, pixel % WIDTH
    start = row * (HEIGHT * WIDTH * CHANNELS)
    value = tl.load(views + start + place, mask=inside, other=0).to(tl.int32)
    box = erased + row * distance
    value = tl.where(is_in_box(box, y, x, HEIGHT, WIDTH), (tl.load(box + 4) >> (8 * channel)) & 255, value)
    if MIXED:
        other = tl.load(partners + start + place, mask=inside, other=0).to(tl.int32)
        box = partners_erased + row * distance
        other = tl.where(
            is_in_box(box, y, x, HEIGHT, WIDTH), (tl.load(box + 4) >> (8 * channel)) & 255, other
        )
        share, cut = tl.load(mixing + row * distance), mixing + row * distance + 1
        blended = (share * value + (256 - share) * other + 128) >> 8
        shown = tl.where(is_in_box(cut, y, x, HEIGHT, WIDTH), other, value)
        value = tl.where(tl.load(cut + 2) == 0, blended, shown)
    if KIND == "uint8":
        value = value.to(tl.uint8)
    else:
        mean = tl.where(channel == 0, mean0, tl.where(channel == 1, mean1, mean2))
        scale = tl.where(channel == 0, scale0, tl.where(channel == 1, scale1, scale2))
        value = (value.to(tl.float32) - mean) * scale
        if KIND == "float16":
            value = value.to(tl.float16)
        if KIND == "bfloat16":
            value = value.to(tl.bfloat16)
        if KIND == "bfloat16-bits":
            bits = value.to(tl.int32, bitcast=True)
            value = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    tl.store(out + start + place, value, mask=inside)


@called_by_kernels
def is_in_box(box, y, x, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return which pixels lie in a box, whose four numbers are 2^16ths of the sides."""
    top, left, height, width = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    rows = (y >= (top * HEIGHT + 32768) >> 16) & (y < ((top + height) * HEIGHT + 32768) >> 16)
    return rows & (x >= (left * WIDTH + 32768) >> 16) & (x < ((left + width) * WIDTH + 32768) >> 16)


def apply(views: Tensor, operations: Tensor) -> Tensor:
    """Return views after their operations, uint8 (B, H, W, C), with 1 or 3 channels.

    ``operations`` are int32 (B, 2·slots), neighbors in a row; views are contiguous.
    """
    batch, height, width, channels = views.shape
    tables = torch.empty((batch, channels, 256), dtype=torch.uint8, device=views.device)
    shape: Any = {"CHANNELS": channels, "SIZE": SIZE, "num_warps": WARPS}
    with torch.cuda.device_of(views):  # type: ignore[no-untyped-call]
        for slot in range(0, operations.shape[1], 2):
            rows = operations[:, slot:], operations.stride(0)
            out = torch.empty_like(views)
            _compiled(tables_kernel)[batch, channels](views, *rows, tables, PIXELS=height * width, **shape)
            blocks = -(-height * width * channels // SIZE)
            _compiled(apply_kernel)[batch, blocks](
                views, *rows, tables, _turns(views.device), out, HEIGHT=height, WIDTH=width, **shape
            )
            views = out
    return views


def finish(
    views: Tensor,
    erased: Tensor,
    mixing: tuple[Tensor, Tensor, Tensor] | None,
    mean: list[float],
    scale: list[float],
    dtype: torch.dtype,
) -> Tensor:
    """Return erased, mixed and normalized views, (B, C, H, W) in channels_last memory.

    Args:
        views: Uint8 (B, H, W, C) with 1 or 3 channels, contiguous.
        erased: Int32 (B, 5): the box (top, left, height, width) and its color.
        mixing: Partners' views, what is erased in them, and int32 (B, 5): the share and the cut. All three records are
            columns of one tensor, or have rows of one distance.
        mean: Of each channel, a float32.
        scale: As ``mean``.
        dtype: Float32, float16 or bfloat16; uint8 for views before normalization.
    """
    batch, height, width, channels = views.shape
    bits = views.device.type == "cpu" and dtype == torch.bfloat16
    out = torch.empty(views.shape, dtype=torch.int16 if bits else dtype, device=views.device)
    partners, partners_erased, shares = mixing or (views, erased, erased)
    spare = [0.0] * (3 - channels)
    with torch.cuda.device_of(views):  # type: ignore[no-untyped-call]
        _compiled(finish_kernel)[batch, -(-height * width * channels // SIZE)](
            *(views, partners, erased, partners_erased, shares, erased.stride(0), out),
            *(*mean, *spare, *scale, *spare),
            HEIGHT=height,
            WIDTH=width,
            CHANNELS=channels,
            MIXED=mixing is not None,
            KIND=BITS if bits else KINDS[dtype],
            SIZE=SIZE,
            num_warps=WARPS,
            # A difference before a product has nothing to fuse; this tells every compiler.
            **({} if views.device.type == "cpu" else {"enable_fp_fusion": False}),
        )
    return (out.view(torch.bfloat16) if bits else out).permute(0, 3, 1, 2)


@cache
def _turns(device: torch.device) -> Tensor:
    return torch.from_numpy(ops.turns()).to(device)


@cache
def _compiled(kernel: Callable[..., Any]) -> Any:
    """Return a kernel for launching; Triton compiles it at the first batch of each size of view and dtype."""
    return triton.jit(kernel)
