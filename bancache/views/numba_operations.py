"""Operations, erasing, mixing and normalization of one view, compiled by numba for a CPU.

The bits are those of ``torch_operations``; ``tests/views/test_numba_operations.py`` compares them. Other compiled loops call
these functions. Views are uint8 (H, W, C), contiguous, and changed in place. Sums are wrapped in ``np.int32``: numba would
compute them in 64 bits, half as many at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.system.numba import loop
from bancache.views import operations as ops

Pixels = NDArray[np.uint8]

_TURNS = ops.turns().astype(np.int64)
_RED, _GREEN, _BLUE = ops.GRAY


@loop
def apply_one(view: Pixels, scratch: Pixels, operation: int, magnitude: int) -> None:
    """Change a view by an operation; ``scratch`` is overwritten and has its shape."""
    if operation == ops.IDENTITY:
        return
    if operation == ops.COLOR:
        _color(view, magnitude)
    elif operation == ops.SHARPNESS:
        _sharpen(view, scratch, magnitude)
    elif operation == ops.ROTATE or ops.SHEAR_X <= operation <= ops.TRANSLATE_Y:
        _move(view, scratch, operation, magnitude)
    else:
        _look_up(view, _tables(view, operation, magnitude))


@loop
def erase_one(view: Pixels, top: int, left: int, height: int, width: int, fill: int) -> None:
    """Fill a box in 2^16ths of the view with a color: red, green and blue in bits 0, 8 and 16."""
    first, last = _edge(top, view.shape[0]), _edge(top + height, view.shape[0])
    start, stop = _edge(left, view.shape[1]), _edge(left + width, view.shape[1])
    for y in range(first, last):
        for x in range(start, stop):
            for channel in range(view.shape[2]):
                view[y, x, channel] = (fill >> (8 * channel)) & 255


@loop
def mix_one(view: Pixels, partner: Pixels, share: int, top: int, left: int, height: int, width: int) -> None:
    """Blend a view with its partner, ``share`` in 256ths of itself; with a cut, show the partner inside of it."""
    if height == 0:
        if share != ops.ONE:
            _mix(view.reshape(-1), partner.reshape(-1), np.int32(share))
        return
    first, last = _edge(top, view.shape[0]), _edge(top + height, view.shape[0])
    start, stop = _edge(left, view.shape[1]), _edge(left + width, view.shape[1])
    for y in range(first, last):
        for x in range(start, stop):
            for channel in range(view.shape[2]):
                view[y, x, channel] = partner[y, x, channel]


@loop
def normalize_one(
    view: Pixels, mean: NDArray[np.float32], scale: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write ``(view - mean) * scale``, float32 (H, W, C); mean and scale are float32 (C,)."""
    channels, line = view.shape[2], view.shape[1] * view.shape[2]
    means, scales = np.empty(line, np.float32), np.empty(line, np.float32)
    for place in range(line):
        means[place], scales[place] = mean[place % channels], scale[place % channels]
    for y in range(view.shape[0]):
        row, written = view[y].reshape(-1), out[y].reshape(-1)
        for place in range(line):
            written[place] = (np.float32(row[place]) - means[place]) * scales[place]


@loop
def _edge(part: int, side: int) -> int:
    return (part * side + (1 << 15)) >> 16


@loop
def _mix(view: Pixels, partner: Pixels, share: np.int32) -> None:
    rest = np.int32(ops.ONE - share)
    for place in range(len(view)):
        total = np.int32(share * np.int32(view[place]) + rest * np.int32(partner[place]) + 128)
        view[place] = total >> 8


@loop
def _blended(factor: np.int32, value: np.int32, other: np.int32) -> np.int32:
    total: Any = np.int32(factor * value + np.int32(ops.ONE - factor) * other + 128)
    return np.int32(min(max(total >> 8, 0), 255))


@loop
def _gray(red: int, green: int, blue: int) -> np.int32:
    total = np.int32(_RED * np.int32(red) + _GREEN * np.int32(green) + _BLUE * np.int32(blue) + (1 << 15))
    return np.int32(total >> 16)


@loop
def _color(view: Pixels, magnitude: int) -> None:
    if view.shape[2] != 3:
        return
    flat, factor = view.reshape(-1), np.int32(magnitude)
    for pixel in range(len(flat) // 3):
        red, green, blue = flat[3 * pixel], flat[3 * pixel + 1], flat[3 * pixel + 2]
        gray = _gray(red, green, blue)
        flat[3 * pixel] = _blended(factor, np.int32(red), gray)
        flat[3 * pixel + 1] = _blended(factor, np.int32(green), gray)
        flat[3 * pixel + 2] = _blended(factor, np.int32(blue), gray)


@loop
def _copy(source: Pixels, out: Pixels) -> None:
    for place in range(len(source)):
        out[place] = source[place]


@loop
def _sharpen(view: Pixels, scratch: Pixels, magnitude: int) -> None:
    _copy(view.reshape(-1), scratch.reshape(-1))
    for y in range(1, view.shape[0] - 1):
        above, row, below = scratch[y - 1].reshape(-1), scratch[y].reshape(-1), scratch[y + 1].reshape(-1)
        _sharpen_row(above, row, below, view.shape[2], np.int32(magnitude), view[y].reshape(-1))


@loop
def _sharpen_row(
    above: Pixels, row: Pixels, below: Pixels, channels: int, factor: np.int32, out: Pixels
) -> None:
    step = np.uintp(channels)  # numba would count negative indices from the end, and take no vectors
    for place in range(np.uintp(max(0, len(row) - 2 * channels))):
        middle, right = place + step, place + step + step
        upper = np.int32(np.int32(above[place]) + np.int32(above[middle]) + np.int32(above[right]))
        sides = np.int32(np.int32(row[place]) + 5 * np.int32(row[middle]) + np.int32(row[right]))
        lower = np.int32(np.int32(below[place]) + np.int32(below[middle]) + np.int32(below[right]))
        # A division by 13, exact for sums of thirteen bytes.
        smooth = np.int32(np.int32(np.int32(upper + sides + lower + 6) * 5042) >> 16)
        out[middle] = _blended(factor, np.int32(row[middle]), smooth)


@loop
def _move(view: Pixels, scratch: Pixels, operation: int, magnitude: int) -> None:
    height, width, channels = view.shape
    source, out = scratch.reshape(-1), view.reshape(-1)
    _copy(out, source)
    p, q, r, across, down = 1 << 16, 0, 0, 0, 0
    if operation == ops.ROTATE:
        p, r = _TURNS[magnitude + ops.MOST_HALF_DEGREES]
        q = -r
    elif operation == ops.SHEAR_X:
        q = magnitude
    elif operation == ops.SHEAR_Y:
        r = magnitude
    elif operation == ops.TRANSLATE_X:
        across = magnitude
    elif operation == ops.TRANSLATE_Y:
        down = magnitude
    for y in range(height):
        dy, dx = 2 * y + 1 - height, 1 - width
        seen_x = p * dx + q * dy + (width << 16) + 2 * across * width
        seen_y = r * dx + p * dy + (height << 16) + 2 * down * height
        to = y * width * channels
        for _ in range(width):
            row, column = seen_y >> 17, seen_x >> 17
            inside = 0 <= row < height and 0 <= column < width
            at = (row * width + column) * channels
            if inside and channels == 3:
                out[to], out[to + 1], out[to + 2] = source[at], source[at + 1], source[at + 2]
            else:
                for channel in range(channels):
                    out[to + channel] = source[at + channel] if inside else np.uint8(ops.OUTSIDE)
            seen_x += 2 * p
            seen_y += 2 * r
            to += channels


@loop
def _look_up(view: Pixels, tables: Pixels) -> None:
    flat, channels = view.reshape(-1), view.shape[2]
    if channels == 3:
        for pixel in range(len(flat) // 3):
            flat[3 * pixel] = tables[0, flat[3 * pixel]]
            flat[3 * pixel + 1] = tables[1, flat[3 * pixel + 1]]
            flat[3 * pixel + 2] = tables[2, flat[3 * pixel + 2]]
    else:
        for place in range(len(flat)):
            flat[place] = tables[place % channels, flat[place]]


@loop
def _tables(view: Pixels, operation: int, magnitude: int) -> Pixels:
    """Return what a value of each channel becomes, uint8 (C, 256)."""
    tables = np.empty((view.shape[2], 256), np.uint8)
    if ops.AUTOCONTRAST <= operation <= ops.EQUALIZE:
        counts = _counts(view)
        for channel in range(view.shape[2]):
            if operation == ops.EQUALIZE:
                _equalized(counts[channel], tables[channel])
            else:
                _stretched(counts[channel], tables[channel])
        return tables
    mean = _mean(view) if operation == ops.CONTRAST else 0
    for value in range(256):
        for channel in range(view.shape[2]):
            tables[channel, value] = _changed(value, operation, magnitude, mean)
    return tables


@loop
def _changed(value: int, operation: int, magnitude: int, mean: int) -> int:
    if operation == ops.INVERT or (operation == ops.SOLARIZE and value >= magnitude):
        return 255 - value
    if operation == ops.POSTERIZE:
        return value & (256 - (1 << (8 - magnitude)))
    if operation == ops.SOLARIZE_ADD and value < 128:
        return min(value + magnitude, 255)
    if ops.CONTRAST <= operation <= ops.BRIGHTNESS:
        return min(max((magnitude * value + (ops.ONE - magnitude) * mean + 128) >> 8, 0), 255)
    return value


@loop
def _mean(view: Pixels) -> int:
    """Return the mean of the grays, rounded to nearest."""
    total: Any = 0
    flat = view.reshape(-1)
    pixels = view.shape[0] * view.shape[1]
    if view.shape[2] == 3:
        for pixel in range(pixels):
            total += _gray(flat[3 * pixel], flat[3 * pixel + 1], flat[3 * pixel + 2])
    else:
        for place in range(pixels):
            total += np.int64(flat[place])
    return (2 * total + pixels) // (2 * pixels)  # type: ignore[no-any-return]


@loop
def _counts(view: Pixels) -> NDArray[np.int32]:
    """Return how often each value occurs, int32 (C, 256)."""
    flat, channels = view.reshape(-1), view.shape[2]
    counts = np.zeros((channels, 256), np.int32)
    if channels == 3:
        for pixel in range(len(flat) // 3):
            counts[0, flat[3 * pixel]] += np.int32(1)
            counts[1, flat[3 * pixel + 1]] += np.int32(1)
            counts[2, flat[3 * pixel + 2]] += np.int32(1)
    else:
        for place in range(len(flat)):
            counts[place % channels, flat[place]] += np.int32(1)
    return counts


@loop
def _stretched(counts: NDArray[np.int32], table: Pixels) -> None:
    low, high = 0, 255
    while counts[low] == 0:
        low += 1
    while counts[high] == 0:
        high -= 1
    for value in range(256):
        table[value] = value
    if low < high:
        for value in range(low, high + 1):
            table[value] = 255 * (value - low) // (high - low)


@loop
def _equalized(counts: NDArray[np.int32], table: Pixels) -> None:
    high, total = 255, 0
    while counts[high] == 0:
        high -= 1
    for value in range(high):
        total += counts[value]
    step, below = total // 255, 0
    for value in range(256):
        table[value] = min((step // 2 + below) // step, 255) if step > 0 else value
        below += counts[value]
