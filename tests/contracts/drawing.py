"""What ``rrc-flip-erase0.25-mixup0.8-cutmix1.0`` draws, one number after another in Python's own integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from math import isqrt

from scipy.special import betainc  # type: ignore[import-untyped]

from bancache.philox import philox, split_seed

WHOLE = 1 << 16
Box = tuple[int, int, int, int]


def words(seed: int, sample: int, view: int, lane: int) -> list[int]:
    counter = (sample & 0xFFFFFFFF, view, (sample >> 32) << 16 | lane, 0x5AFE_0007)
    return [int(word) for word in philox(split_seed(seed), *counter)]


def below(word: int, limit: int) -> int:
    return word * limit >> 32


def side(entry: int, least: Fraction, most: Fraction) -> int:
    """The root of one of 1024 evenly spaced shares of an area, in 2^16ths."""
    low, step = int(least * 2**32), int((most - least) * 2**32)
    return isqrt(low + step * (2 * entry + 1) // 2048)


def stretch(entry: int, aspect: Fraction) -> int:
    """The root of one of 1024 aspects, evenly spaced by their logarithm, in 2^16ths."""
    return round(WHOLE * math.exp(math.log(aspect) / 2 * (2 * entry + 1 - 1024) / 1024))


def tries(seed: int, sample: int, view: int, lane: int) -> Iterator[tuple[int, int]]:
    """Ten pairs of an area and an aspect."""
    for first in range(lane, lane + 5):
        a, b, c, d = (below(word, 1024) for word in words(seed, sample, view, first))
        yield from ((a, b), (c, d))


def crop(seed: int, sample: int, view: int, height: int, width: int) -> Box:
    root, aspect = isqrt(height * width << 16), Fraction(4, 3)
    for area, shape in tries(seed, sample, view, 0):
        scale = root * side(area, Fraction(8, 100), Fraction(1))
        h = (scale * stretch(1023 - shape, aspect) + (1 << 39)) >> 40
        w = (scale * stretch(shape, aspect) + (1 << 39)) >> 40
        if 0 < h <= height and 0 < w <= width:
            first, second, _, _ = words(seed, sample, view, 5)
            return below(first, height - h + 1), below(second, width - w + 1), h, w
    h, w = (
        min(one, math.floor(other * Fraction(4, 3) + Fraction(1, 2)))
        for one, other in ((height, width), (width, height))
    )
    return (height - h) // 2, (width - w) // 2, h, w


def erased(seed: int, sample: int, view: int) -> tuple[int, ...]:
    """Top, left, height, width and color; nothing is erased where the height is 0."""
    first, second, chance, color = words(seed, sample, view, 13)
    h = w = 0
    if below(chance, WHOLE) < WHOLE // 4:
        for area, shape in tries(seed, sample, view, 8):
            scale = side(area, Fraction(2, 100), Fraction(1, 3))
            high = (scale * stretch(1023 - shape, Fraction(10, 3)) + (1 << 15)) >> 16
            wide = (scale * stretch(shape, Fraction(10, 3)) + (1 << 15)) >> 16
            if high < WHOLE and wide < WHOLE:
                h, w = high, wide
                break
    return below(first, WHOLE - h + 1), below(second, WHOLE - w + 1), h, w, below(color, 1 << 24)


def own(seed: int, sample: int, view: int, height: int, width: int) -> list[int]:
    """The own part of a record."""
    flip = below(words(seed, sample, view, 24)[0], 2)
    return [*crop(seed, sample, view, height, width), flip, *erased(seed, sample, view)]


def mixed(seed: int, sample: int, view: int) -> list[int]:
    """The share of the view itself, and the cut."""
    kind, chance, _, _ = words(seed, sample, view, 16)
    cuts = below(kind, 2) == 1
    alpha = 1.0 if cuts else 0.8
    share = sum(chance >= betainc(alpha, alpha, (k + 0.5) / 256) * 2**32 for k in range(256))
    if not cuts:
        return [share, 0, 0, 0, 0]
    edge, sides = isqrt((256 - share) << 24), []
    for word in words(seed, sample, view, 17)[:2]:
        center = below(word, WHOLE)
        start, stop = max(0, center - edge // 2), min(WHOLE, center + edge - edge // 2)
        sides.append((start, stop - start))
    (top, height), (left, width) = sides
    return [share, top, left, height, width] if height and width else [256, top, left, 0, 0]
