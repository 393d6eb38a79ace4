"""What operations are by their definition, one pixel after another, and a batch with all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.views.operations import OPERATIONS, turns

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int32]
# An even and an odd side; a side that is longer than wide.
SHAPES = {"colored": (12, 17, 3), "gray": (9, 8, 1)}
TURNS = turns()


def views_and_operations(kind: str, slots: int = 1) -> tuple[Pixels, Integers]:
    """Return views, uint8 (B, H, W, C), and for each operation several magnitudes, the extreme ones among them."""
    rng = np.random.default_rng(list(SHAPES).index(kind))
    chosen = [[(number, value) for value in magnitudes(name, rng)] for number, name in enumerate(OPERATIONS)]
    rows = np.array([row for group in chosen for row in group], np.int32)
    columns = [rows, *(rng.permutation(rows) for _ in range(slots - 1))]
    views = rng.integers(0, 256, (len(rows), *SHAPES[kind]))
    # Flat, dark and narrow pictures, whose histograms have gaps.
    narrow = rng.integers(1, 9, len(rows))[:, None, None, None]
    views = np.where(narrow > 6, views, 90 + views // 4 // narrow * narrow)
    views[::13] = 7
    return views.astype(np.uint8), np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class Finished:
    """Views, their partners, and what happens after the operations; boxes are int32 (B, 4) in 2^16ths."""

    views: Pixels
    partners: Pixels
    boxes: Integers
    fill: Integers
    partner_boxes: Integers
    partner_fill: Integers
    share: Integers
    cut: Integers
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def finished(kind: str) -> Finished:
    """Return a batch with boxes of all kinds: none, whole, and some whose edges lie between pixels."""
    rng = np.random.default_rng(7)
    count, channels = 20, SHAPES[kind][2]

    def boxes() -> Integers:
        edges = np.sort(rng.integers(0, 65537, (count, 2, 2)), axis=1)
        edges[rng.random(count) < 0.2] = [[0, 0], [65536, 65536]]
        found = np.concatenate([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1)
        found[rng.random(count) < 0.4] = 0
        return found.astype(np.int32)

    def fill() -> Integers:
        return rng.integers(0, 1 << 24, count, np.int32)

    views, partners = rng.integers(0, 256, (2, count, *SHAPES[kind]), np.uint8)
    share = rng.integers(0, 257, count, np.int32)
    share[:3] = 0, 256, 128
    mean, scale = rng.uniform(100, 140, channels), 1 / rng.uniform(50, 70, channels)
    numbers = mean.astype(np.float32), scale.astype(np.float32)
    return Finished(views, partners, boxes(), fill(), boxes(), fill(), share, boxes(), *numbers)


def magnitudes(name: str, rng: np.random.Generator) -> list[int]:
    least, greatest = {
        "rotate": (-270, 270),
        "posterize": (0, 8),
        "solarize": (0, 256),
        "solarize-add": (0, 128),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), (0, 512)),
        **dict.fromkeys(("shear-x", "shear-y", "translate-x", "translate-y"), (-65536, 65536)),
    }.get(name, (0, 0))
    return [least, greatest, *rng.integers(least, greatest + 1, 5).tolist()]


def defined(view: Pixels, operation: int, magnitude: int) -> Pixels:
    """Return a view (H, W, C) after an operation, by Python's integers."""
    name, height, width = OPERATIONS[operation], *view.shape[:2]
    grays = [[gray(view[y, x].tolist()) for x in range(width)] for y in range(height)]
    mean = (2 * sum(map(sum, grays)) + height * width) // (2 * height * width)
    out = np.empty_like(view)
    for c in range(view.shape[2]):
        channel: Any = view[:, :, c].tolist()
        values = sorted(value for row in channel for value in row)
        for y in range(height):
            for x in range(width):
                v = channel[y][x]
                if name == "color":
                    v = blend(magnitude, v, grays[y][x])
                elif name == "sharpness":
                    v = sharp(magnitude, channel, y, x)
                elif name in ("rotate", "shear-x", "shear-y", "translate-x", "translate-y"):
                    v = moved(name, magnitude, channel, y, x)
                else:
                    v = changed(name, magnitude, v, values, mean)
                out[y, x, c] = v
    return out


def clamp(n: int) -> int:
    return min(255, max(0, n))


def blend(factor: int, v: int, w: int) -> int:
    return clamp((factor * v + (256 - factor) * w + 128) // 256)


def gray(pixel: list[int]) -> int:
    return (
        pixel[0]
        if len(pixel) == 1
        else (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 2**15) // 2**16
    )


def changed(name: str, magnitude: int, v: int, values: list[int], mean: int) -> int:
    step = sum(value < values[-1] for value in values) // 255
    if name == "equalize" and step:
        return clamp((step // 2 + sum(value < v for value in values)) // step)
    if name == "autocontrast" and values[0] < values[-1]:
        return 255 * (v - values[0]) // (values[-1] - values[0])
    unit = 1 << (8 - min(8, abs(magnitude)))
    return {
        "invert": 255 - v,
        "posterize": v // unit * unit,
        "solarize": v if v < magnitude else 255 - v,
        "solarize-add": clamp(v + magnitude) if v < 128 else v,
        "contrast": blend(magnitude, v, mean),
        "brightness": blend(magnitude, v, 0),
    }.get(name, v)


def sharp(factor: int, channel: list[list[int]], y: int, x: int) -> int:
    if y in (0, len(channel) - 1) or x in (0, len(channel[0]) - 1):
        return channel[y][x]
    around = sum(sum(row[x - 1 : x + 2]) for row in channel[y - 1 : y + 2])
    return blend(factor, channel[y][x], (around + 4 * channel[y][x] + 6) // 13)


def moved(name: str, magnitude: int, channel: list[list[int]], y: int, x: int) -> int:
    height, width = len(channel), len(channel[0])
    dx, dy = 2 * x + 1 - width, 2 * y + 1 - height
    p, q, r, u, across, down = 2**16, 0, 0, 2**16, 0, 0
    if name == "rotate":
        cosine, sine = TURNS[magnitude + 270].tolist()
        p, q, r, u = cosine, -sine, sine, cosine
    if name.startswith("shear"):
        q, r = (magnitude, 0) if name == "shear-x" else (0, magnitude)
    if name.startswith("translate"):
        across, down = (magnitude, 0) if name == "translate-x" else (0, magnitude)
    x = (p * dx + q * dy + width * 2**16 + 2 * across * width) // 2**17
    y = (r * dx + u * dy + height * 2**16 + 2 * down * height) // 2**17
    return channel[y][x] if 0 <= y < height and 0 <= x < width else 128
