"""Random boxes: the part of a picture that a resized crop shows, and the part of a view that is erased.

Area and aspect are drawn from tables of integers, and nothing is computed in floats. The distributions are those of
RandomResizedCrop in torchvision and of RandomErasing in timm: area uniform, logarithm of the aspect uniform, ten tries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from bancache.views.record import WHOLE
from bancache.views.space import Sizes

# Four random words of 32 bits for each view, as uint64 (B,), at a number of one's choice.
Words = Callable[[int], tuple[NDArray[np.uint64], ...]]
Integers = NDArray[np.int64]

TRIES = 10
_ENTRIES = 1024  # of a table
_ERASED_AREAS = Fraction(2, 100), Fraction(1, 3)
_ERASED_ASPECT = Fraction(10, 3)


@dataclass(frozen=True)
class ResizedCrop:
    """Boxes of RandomResizedCrop (Szegedy et al., 2015): area from ``least_area`` to 1, aspect from 1/``aspect`` to ``aspect``."""

    least_area: Fraction = Fraction(8, 100)
    aspect: Fraction = Fraction(4, 3)

    def draw(self, words: Words, samples: Integers, sizes: Sizes) -> tuple[Integers, ...]:
        """Return top, left, height and width in pixels, int64 (B,) each. Lanes 0 to 5 of ``words`` are used."""
        heights, widths, roots = sizes.of(samples)
        sides, aspects = _sides(self.least_area, Fraction(1)), _aspects(self.aspect)
        chosen = np.zeros(len(samples), bool)
        height, width = _whole(heights, widths, int(self.aspect * WHOLE))
        for area, aspect in _tries(words):
            side = roots * sides[area]  # in 2^24ths of a pixel
            h, w = _rounded(side * aspects[::-1][aspect], 40), _rounded(side * aspects[aspect], 40)
            fits = ~chosen & (h > 0) & (w > 0) & (h <= heights) & (w <= widths)
            height, width = np.where(fits, h, height), np.where(fits, w, width)
            chosen |= fits
        place = words(5)
        top = np.where(chosen, below(place[0], heights - height + 1), (heights - height) // 2)
        left = np.where(chosen, below(place[1], widths - width + 1), (widths - width) // 2)
        return top, left, height, width


def erased_box(words: Words, probability: int) -> tuple[Integers, ...]:
    """Return top, left, height and width in 2^16ths of the view, and the color; with a probability in 2^16ths.

    Int64 (B,) each; a view that is not erased has a height of 0. Lanes 0 to 5 of ``words`` are used.
    """
    first = words(5)
    sides, aspects = _sides(*_ERASED_AREAS), _aspects(_ERASED_ASPECT)
    chosen = below(first[2], WHOLE) >= probability  # these are not erased, and stay empty
    height, width = np.zeros((2, len(chosen)), np.int64)
    for area, aspect in _tries(words):
        h, w = _rounded(sides[area] * aspects[::-1][aspect], 16), _rounded(sides[area] * aspects[aspect], 16)
        fits = ~chosen & (h < WHOLE) & (w < WHOLE)
        height, width = np.where(fits, h, height), np.where(fits, w, width)
        chosen |= fits
    top, left = below(first[0], WHOLE - height + 1), below(first[1], WHOLE - width + 1)
    return top, left, height, width, below(first[3], 1 << 24)


def below(word: NDArray[np.uint64], limit: Integers | int) -> Integers:
    """Return a number below ``limit`` for each random word of 32 bits."""
    return ((word * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def _tries(words: Words) -> list[tuple[Integers, Integers]]:
    """Return an entry of the table of areas and one of the table of aspects for each try."""
    every = [word for lane in range(TRIES // 2) for word in words(lane)]
    entries = [below(word, _ENTRIES) for word in every]
    return list(zip(entries[::2], entries[1::2], strict=True))


def _whole(heights: Integers, widths: Integers, aspect: int) -> tuple[Integers, Integers]:
    """Return the largest height and width inside pictures, with an aspect, in 2^16ths, that is not exceeded."""
    height = np.minimum(heights, _rounded(widths * aspect, 16))
    width = np.minimum(widths, _rounded(heights * aspect, 16))
    return height, width


def _rounded(values: Integers, bits: int) -> Integers:
    """Return values divided by 2^bits, rounded half up."""
    return (values + (1 << (bits - 1))) >> bits


@cache
def _sides(least: Fraction, most: Fraction) -> Integers:
    """Return the square roots of evenly spaced shares of an area, in 2^16ths."""
    low, step = int(least * (1 << 32)), int((most - least) * (1 << 32))
    shares = [low + step * (2 * i + 1) // (2 * _ENTRIES) for i in range(_ENTRIES)]
    return np.array([isqrt(share) for share in shares], np.int64)


@cache
def _aspects(aspect: Fraction) -> Integers:
    """Return the square roots of aspects (width by height) whose logarithms are evenly spaced, in 2^16ths.

    Entry i of the reversed table is the inverse of entry i.
    """
    # Decimal's logarithm and exponential are correctly rounded on every machine; a new context has nobody's settings.
    with localcontext(Context(prec=30)):
        half = (Decimal(aspect.numerator) / aspect.denominator).ln() / 2
        exponents = [half * (2 * i + 1 - _ENTRIES) / _ENTRIES for i in range(_ENTRIES)]
        return np.array(
            [int((exponent.exp() * WHOLE).to_integral_value()) for exponent in exponents], np.int64
        )
