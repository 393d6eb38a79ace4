"""Resampling by numba: the bytes of ``bancache.views.resample``, a view at a time, several times faster than torch.

The picture is read once. A pair of its rows is packed into one row of uint64, the lower row in the upper half, so that one
multiplication serves both: no sum of 16-bit weights and 8-bit pixels reaches 2^24. A ring holds as many narrowed rows as an
output row sees, so everything but the picture and the view stays in the smallest cache: some ten kilobytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import loop
from bancache.views.record import FLIP, HEIGHT, LEFT, TOP, WIDTH
from bancache.views.resample import BITS, Mode

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# 2^15 in both halves: what rounds the sums.
_HALVES = np.uint64((1 << (BITS - 1)) | (1 << (BITS + 31)))
_HALF = np.int32(1 << (BITS - 1))
_LOW, _UPPER, _HIGH = np.uint64(BITS), np.uint64(32), np.uint64(BITS + 32)


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
    normalization: tuple[torch.Tensor, torch.Tensor] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return views as ``bancache.views.resample.resample`` does, by torch's number of threads; tensors are on the CPU.

    With a ``normalization``, mean and scale as float32 (C,), they are ``(x - mean) * scale``, float32 (B, H, W, C).
    ``out`` is a contiguous tensor to write to instead of a new one.
    """
    places = np.stack(
        [column.numpy().astype(np.int64, copy=False) for column in (offsets, heights, widths)], axis=1
    )
    records = torch.cat([boxes, flips[:, None]], dim=1).numpy().astype(np.int32, copy=False)
    if out is None:
        dtype = torch.uint8 if normalization is None else torch.float32
        out = torch.empty((len(places), *size, channels), dtype=dtype)
    written = out.numpy()
    mean, scale = (torch.empty(0), torch.empty(0)) if normalization is None else normalization
    threads = max(1, min(torch.get_num_threads(), len(places)))

    def part(thread: int) -> None:
        which = slice(thread * len(places) // threads, (thread + 1) * len(places) // threads)
        rest = mode == "reflect", mean.numpy(), scale.numpy(), written[which]
        _views(flat.numpy(), places[which], records[which], *rest)

    if threads == 1:
        part(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))
    return out


@loop
def _views(
    flat: Bytes,
    places: NDArray[np.int64],
    records: NDArray[np.int32],
    reflect: bool,
    mean: Floats,
    scale: Floats,
    out: NDArray[Any],
) -> None:
    for at in range(len(places)):
        place = places[at]
        resample_one(flat, place[0], place[1], place[2], records[at], reflect, mean, scale, out[at])


@loop
def resample_one(
    flat: Bytes,
    offset: int,
    height: int,
    width: int,
    record: NDArray[np.int32],
    reflect: bool,
    mean: Floats,
    scale: Floats,
    out: NDArray[Any],
) -> None:
    """Write the view of one box, for other loops.

    Args:
        flat: Pictures, uint8; ``flat[offset:]`` begins with this one, (height, width, C).
        offset: Where it begins.
        height: Its own, in pixels.
        width: As ``height``.
        record: Begins with the box, which may begin outside of the picture, and whether the view is mirrored.
        reflect: Whether the picture is mirrored at its edges or surrounded by zeros.
        mean: Float32 (C,), or nothing.
        scale: As ``mean``.
        out: Contiguous (H, W, C): uint8 without a mean, else float32 ``(x - mean) * scale``.
    """
    size_height, size_width, channels = out.shape
    top, left, box_height, box_width = record[TOP], record[LEFT], record[HEIGHT], record[WIDTH]
    first_row, row_weights = _taps(box_height, size_height, np.int32(0))
    first_column, column_weights = _taps(box_width, size_width, record[FLIP])
    count = row_weights.shape[1]
    # Rows come in pairs, so a pair may begin one row early and end one row late.
    ring = np.empty(((count + 3) // 2 * 2, size_width * channels), np.uint8)
    packed = np.empty(box_width * channels, np.uint64)
    sums = np.empty(size_width * channels, np.uint64)
    columns = _columns(left, box_width, width, channels, reflect)
    total = np.empty(size_width * channels, np.int32)
    means, scales = _repeated(mean, size_width), _repeated(scale, size_width)
    lines = out.reshape(size_height, size_width * channels)
    done = 0
    for y in range(size_height):
        start = np.int64(first_row[y])
        while done < start + count:
            upper = _place(top + done, height, reflect)
            lower = _place(top + min(done + 1, box_height - 1), height, reflect)
            _pack(flat, offset, width * channels, upper, lower, left * channels, columns, packed)
            at = done % len(ring)
            _narrow(packed, first_column, column_weights, channels, sums, ring[at], ring[at + 1])
            done += 2
        _sum(ring, start, row_weights[y], total)
        _finish(total, means, scales, lines[y])


@loop
def _taps(length: int, size: int, flip: np.int32) -> tuple[NDArray[np.uintp], NDArray[np.uint64]]:
    """Return the first source pixel and the weights of every output pixel, (size,) and (size, taps); all within the box."""
    longest = max(length, size)
    count = min(-(-2 * longest // size), length)
    first, weights = np.empty(size, np.uintp), np.empty((size, count), np.uint64)
    exact = np.empty(count, np.int64)
    for x in range(size):
        center = (2 * x + 1) * length
        begin = min(max((center - 2 * longest - size) // (2 * size) + 1, 0), length - count)
        total, largest = 0, 0
        for tap in range(count):
            exact[tap] = max(0, 2 * longest - abs((2 * (begin + tap) + 1) * size - center))
            total += exact[tap]
            if exact[tap] > exact[largest]:
                largest = tap
        missing = 1 << BITS
        to = size - 1 - x if flip != 0 else x
        for tap in range(count):
            weight = ((exact[tap] << (BITS + 1)) + total) // (2 * total)
            missing -= weight
            weights[to, tap] = weight
        weights[to, largest] = np.int64(weights[to, largest]) + missing
        first[to] = begin
    return first, weights


@loop
def _place(at: int, side: int, reflect: bool) -> int:
    """Return where a coordinate lies in a picture, or -1 if there is nothing."""
    if 0 <= at < side:
        return at
    if not reflect:
        return -1
    turn = max(1, 2 * (side - 1))
    at %= turn
    return min(at, turn - at)


@loop
def _columns(left: int, length: int, width: int, channels: int, reflect: bool) -> NDArray[np.int64]:
    """Return where in its row each byte of the box's row lies; nothing if they follow each other."""
    if left >= 0 and left + length <= width:
        return np.empty(0, np.int64)
    columns = np.empty(length * channels, np.int64)
    for column in range(length):
        place = _place(left + column, width, reflect)
        for channel in range(channels):
            columns[column * channels + channel] = place * channels + channel if place >= 0 else -1
    return columns


@loop
def _pack(
    flat: Bytes,
    offset: int,
    line: int,
    upper: int,
    lower: int,
    left: int,
    columns: NDArray[np.int64],
    packed: NDArray[np.uint64],
) -> None:
    """Pack the box's part of two rows of a picture, which has ``line`` bytes a row; -1 is a row of zeros."""
    if upper < 0 and lower < 0:
        packed[:] = 0
    elif len(columns) > 0 or upper < 0 or lower < 0:
        for byte in range(len(packed)):
            column = columns[byte] if len(columns) > 0 else left + byte
            seen = np.uint64(0)
            if column >= 0 and upper >= 0:
                seen |= np.uint64(flat[offset + upper * line + column])
            if column >= 0 and lower >= 0:
                seen |= np.uint64(flat[offset + lower * line + column]) << _UPPER
            packed[byte] = seen
    else:
        begin, other = offset + upper * line + left, offset + lower * line + left
        above, below = flat[begin : begin + len(packed)], flat[other : other + len(packed)]
        for byte in range(len(packed)):
            packed[byte] = np.uint64(above[byte]) | (np.uint64(below[byte]) << _UPPER)


@loop
def _narrow(
    packed: NDArray[np.uint64],
    first: NDArray[np.uintp],
    weights: NDArray[np.uint64],
    channels: int,
    sums: NDArray[np.uint64],
    upper: Bytes,
    lower: Bytes,
) -> None:
    """Resample two packed rows horizontally; ``sums`` has room for a row."""
    count = weights.shape[1]
    step = np.uintp(channels)
    for x in range(len(first)):
        if channels == 3:
            place = first[x] * step
            red = green = blue = _HALVES
            for tap in range(count):
                weight = weights[x, tap]
                red += weight * packed[place]
                green += weight * packed[place + np.uintp(1)]
                blue += weight * packed[place + np.uintp(2)]
                place += step
            sums[3 * x], sums[3 * x + 1], sums[3 * x + 2] = red, green, blue
        else:
            for channel in range(channels):
                place = first[x] * step + np.uintp(channel)
                seen = _HALVES
                for tap in range(count):
                    seen += weights[x, tap] * packed[place]
                    place += step
                sums[channels * x + channel] = seen
    # Loops of their own become vectors.
    for byte in range(len(sums)):
        upper[byte] = np.uint8(sums[byte] >> _LOW)
    for byte in range(len(sums)):
        lower[byte] = np.uint8(sums[byte] >> _HIGH)


@loop
def _sum(ring: Bytes, start: np.int64, weights: NDArray[np.uint64], total: NDArray[np.int32]) -> None:
    """Write the weighted sum of rows, with what rounds it."""
    total[:] = _HALF
    for tap in range(len(weights)):
        weight, row = np.int32(weights[tap]), ring[(start + tap) % len(ring)]
        for byte in range(len(total)):
            total[byte] = np.int32(total[byte] + weight * np.int32(row[byte]))


@loop
def _finish(total: NDArray[np.int32], mean: Floats, scale: Floats, out: NDArray[Any]) -> None:
    """Write a row of the view from its sums."""
    if len(mean) == 0:
        for byte in range(len(total)):
            out[byte] = total[byte] >> BITS
    else:
        for byte in range(len(total)):
            out[byte] = (np.float32(total[byte] >> BITS) - mean[byte]) * scale[byte]


@loop
def _repeated(values: Floats, times: int) -> Floats:
    """Return a number per channel, once for every pixel of a row."""
    found = np.empty(times * len(values), np.float32)
    for place in range(len(found)):  # numba compiles an assignment to a slice for seconds
        found[place] = values[place % len(values)]
    return found
