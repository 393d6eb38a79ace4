"""Resampling by numba: the bytes of ``bancache.views.resample``, a view at a time, several times faster than torch.

The picture is read once. A pair of its rows is packed into one row of float64, the lower row 2^26 times as large, so that one
multiplication serves both: no sum of 16-bit weights and 8-bit pixels reaches 2^24, and float64 is exact up to 2^53. A ring holds
as many narrowed rows as an output row sees, so all but the picture and the view is in the small caches: some thirty kilobytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import loop, sealed
from bancache.views.record import FLIP, HEIGHT, LEFT, TOP, WIDTH
from bancache.views.resample import BITS, Mode

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_LOWER, _HALF, _UNIT = np.float64(1 << 26), np.float32(1 << (BITS - 1)), np.float32(2.0**-BITS)
# 2^15 for both rows, which rounds the sums, and 2^52: such a float64's last 52 bits are its whole number.
_BEGIN = np.float64((1 << 52) + (1 << (BITS - 1)) + (1 << (BITS + 25)))
_LOW, _HIGH, _BYTE = np.uint64(BITS), np.uint64(BITS + 26), np.uint64(255)


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
    mean, scale = normalization or (torch.zeros(channels), torch.ones(channels))
    threads = max(1, min(torch.get_num_threads(), len(places)))

    def part(thread: int) -> None:
        which = slice(thread * len(places) // threads, (thread + 1) * len(places) // threads)
        rest = mode == "reflect", mean.numpy(), scale.numpy(), written[which]
        _views(sealed(flat.numpy()), places[which], records[which], *rest)

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
        mean: Float32 (C,).
        scale: As ``mean``.
        out: Contiguous (H, W, C), ``(x - mean) * scale``: float32, or uint8 where they are 0 and 1.
    """
    size_height, size_width, channels = out.shape
    top, left, box_height, box_width = record[TOP], record[LEFT], record[HEIGHT], record[WIDTH]
    first_row, row_weights = _taps(box_height, size_height, np.int32(0))
    first_column, column_weights = _taps(box_width, size_width, record[FLIP])
    count = row_weights.shape[1]
    # Rows come in pairs, so a pair may begin one row early and end one row late. Rows without weight are read, too.
    ring = np.zeros(((count + 3) // 2 * 2, size_width * channels), np.float32)
    packed, sums = np.empty(box_width * channels), np.empty(size_width * channels)
    columns = _columns(left, box_width, width, channels, reflect)
    total = np.full(size_width * channels, _HALF)
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
        _line(ring, start, row_weights[y], total, means, scales, lines[y])


@loop
def _taps(length: int, size: int, flip: np.int32) -> tuple[NDArray[np.uintp], NDArray[np.float64]]:
    """Return the first source pixel and the weights of every output pixel, (size,) and (size, taps); all within the box."""
    longest = max(length, size)
    count = min(-(-2 * longest // size), length)
    first, weights = np.empty(size, np.uintp), np.empty((size, count))
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
        weights[to, largest] += missing
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
    packed: NDArray[np.float64],
) -> None:
    """Pack the box's part of two rows of a picture, which has ``line`` bytes a row; -1 is a row of zeros."""
    if upper < 0 and lower < 0:
        packed[:] = 0
    elif len(columns) > 0 or upper < 0 or lower < 0:
        for byte in range(len(packed)):
            column = columns[byte] if len(columns) > 0 else left + byte
            seen = 0.0
            if column >= 0 and upper >= 0:
                seen += np.float64(flat[offset + upper * line + column])
            if column >= 0 and lower >= 0:
                seen += np.float64(flat[offset + lower * line + column]) * _LOWER
            packed[byte] = seen
    else:
        begin, other = offset + upper * line + left, offset + lower * line + left
        above, below = flat[begin : begin + len(packed)], flat[other : other + len(packed)]
        for byte in range(len(packed)):
            packed[byte] = np.float64(above[byte]) + np.float64(below[byte]) * _LOWER


@loop
def _narrow(
    packed: NDArray[np.float64],
    first: NDArray[np.uintp],
    weights: NDArray[np.float64],
    channels: int,
    sums: NDArray[np.float64],
    upper: Floats,
    lower: Floats,
) -> None:
    """Resample two packed rows horizontally; ``sums`` has room for a row."""
    count = weights.shape[1]
    step = np.uintp(channels)
    for x in range(len(first)):
        if channels == 3:
            place = first[x] * step
            red = green = blue = _BEGIN
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
                seen = _BEGIN
                for tap in range(count):
                    seen += weights[x, tap] * packed[place]
                    place += step
                sums[channels * x + channel] = seen
    # A loop of its own becomes vectors, and faster ones than those that would write bytes.
    bits = sums.view(np.uint64)
    for byte in range(len(bits)):
        upper[byte] = np.float32(np.int32((bits[byte] >> _LOW) & _BYTE))
        lower[byte] = np.float32(np.int32((bits[byte] >> _HIGH) & _BYTE))


@loop
def _line(
    ring: Floats,
    start: np.int64,
    weights: NDArray[np.float64],
    total: Floats,
    mean: Floats,
    scale: Floats,
    out: NDArray[Any],
) -> None:
    """Write a row of the view, the weighted sum of rows of the ring.

    Four rows at a time cost less than each alone; ``total`` has what rounds the sum and what came before these four.
    """
    count = len(weights)
    if count > 4:
        total[:] = _HALF
    for tap in range(0, count, 4):
        # Rows after the last have no weight.
        w0 = np.float32(weights[tap])
        w1 = np.float32(weights[tap + 1] if tap + 1 < count else 0)
        w2 = np.float32(weights[tap + 2] if tap + 2 < count else 0)
        w3 = np.float32(weights[tap + 3] if tap + 3 < count else 0)
        place = start + tap
        row0, row1 = ring[place % len(ring)], ring[(place + 1) % len(ring)]
        row2, row3 = ring[(place + 2) % len(ring)], ring[(place + 3) % len(ring)]
        if tap + 4 < count:
            for at in range(len(total)):
                total[at] += w0 * row0[at] + w1 * row1[at] + w2 * row2[at] + w3 * row3[at]
        else:
            for at in range(len(total)):
                seen = total[at] + w0 * row0[at] + w1 * row1[at] + w2 * row2[at] + w3 * row3[at]
                out[at] = (np.floor(seen * _UNIT) - mean[at]) * scale[at]


@loop
def _repeated(values: Floats, times: int) -> Floats:
    """Return a number per channel, once for every pixel of a row."""
    found = np.empty(times * len(values), np.float32)
    for place in range(len(found)):  # numba compiles an assignment to a slice for seconds
        found[place] = values[place % len(values)]
    return found
