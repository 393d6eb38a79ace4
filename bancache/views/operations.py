"""Operations on the pixels of views: their numbers, the policies that choose them, and what they do to 8-bit pixels.

An operation is a number and an integer magnitude that does not depend on the view's size. ``>>`` rounds down, also for
negative numbers. (H, W) are a view's sides, up to 8192 pixels, v is an input value, c its channel, and ::

    clamp(n)       = 0 below 0, 255 above 255, else n
    blend(f, v, w) = clamp((f·v + (256 − f)·w + 128) >> 8)
    gray(r, g, b)  = (19595·r + 38470·g + 7471·b + 2^15) >> 16; of a gray view, its value

==  ============  =====================  ========================================================================
 0  identity                             v
 1  autocontrast                         255·(v − lo) // (hi − lo) with the least and greatest value lo, hi of
                                         the channel; v if they are equal
 2  equalize                             clamp((s // 2 + below(v)) // s), where below(v) is the number of the
                                         channel's values below v and s = below(greatest value) // 255; v if s = 0
 3  invert                               255 − v
 4  rotate        a, half degrees        see below; positive angles turn the picture counterclockwise
 5  posterize     bits, 0..8             the upper bits of v, 0 for the others
 6  solarize      threshold, 0..256      v below the threshold, else 255 − v
 7  solarize-add  n, 0..255              clamp(v + n) below 128, else v
 8  color         f, 256ths              blend(f, v, gray of the pixel)
 9  contrast      f, 256ths              blend(f, v, m) with m = (2·sum + n) // (2·n) for n pixels with that sum of
                                         grays
10  brightness    f, 256ths              blend(f, v, 0)
11  sharpness     f, 256ths              blend(f, v, w) with w = (t + 6) // 13, where t is the sum of 3 × 3 values
                                         of the channel, its middle five times; pixels on the edge keep their value
12  shear-x       s, 2^16ths             see below
13  shear-y       s, 2^16ths             see below
14  translate-x   t, 2^16ths of W        see below; the picture moves left by t
15  translate-y   t, 2^16ths of H        see below; the picture moves up by t
==  ============  =====================  ========================================================================

Pixel (y, x) of a rotated, sheared or translated view is that of the input at ::

    x' = (p·dx + q·dy + W·2^16 + 2·t·W) >> 17        dx = 2·x + 1 − W
    y' = (r·dx + u·dy + H·2^16 + 2·t·H) >> 17        dy = 2·y + 1 − H

or 128 where that is outside. (p, q, r, u) are (2^16, 0, 0, 2^16), with q = s for shear-x and r = s for shear-y, and
(cos, −sin, sin, cos) of ``turns`` for rotate; t counts for its own axis only.

Magnitudes and probabilities are those of RandAugment (Cubuk et al., 2019) in timm, of TrivialAugment (Müller & Hutter,
2021) and of color jitter in torchvision. Pixels are Pillow's or differ by 1, but for what moves them: a rotation takes
another neighbor for a few pixels, and shears are about the middle of the view, not its corner, so that the object stays
in it. timm interpolates what it moves; here the nearest pixel is taken, as in torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import permutations
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.views.boxes import Words, below

# Frozen: caches on disk depend on the numbers.
OPERATIONS = (
    *("identity", "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize-add"),
    *("color", "contrast", "brightness", "sharpness", "shear-x", "shear-y", "translate-x", "translate-y"),
)
(IDENTITY, AUTOCONTRAST, EQUALIZE, INVERT, ROTATE, POSTERIZE, SOLARIZE, SOLARIZE_ADD) = range(8)
(COLOR, CONTRAST, BRIGHTNESS, SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y) = range(8, 16)
SIGNED = (ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y)

ONE = 256  # a factor of 1
GRAY = (19595, 38470, 7471)  # ITU-R 601's luma in 2^16ths, as in Pillow
OUTSIDE = 128
MOST_HALF_DEGREES = 270
_FIRST_LANE = 32
_TAIL = 64  # bits of a sine beyond the 2^16ths, while it is computed
_PI = 31415926535897932384626433832795028841972  # in 10^40ths


@dataclass(frozen=True)
class Policy:
    """Which operations views go through: their number, and how they are drawn.

    Attributes:
        name: ``rand-m9-n2`` for two operations of RandAugment at magnitude 9 of 10, ``trivial`` for TrivialAugment, or
            ``color0.4`` for brightness, contrast and saturation changed by up to 0.4, in any order.

    >>> Policy.parse("rand-m9-n2").slots
    2
    """

    GRAMMAR: ClassVar[str] = r"rand-m(?:\d|10)-n[1-4]|trivial|color(?:0\.\d*[1-9]|1\.0)"

    name: str

    @classmethod
    def parse(cls, name: str) -> Policy:
        """Read a name.

        Raises:
            UsageError: There is no such policy.
        """
        if not re.fullmatch(cls.GRAMMAR, name, re.ASCII):
            raise UsageError(
                f"no operations are called '{name}'",
                hint="use rand-m9-n2 (m0 to m10, n1 to n4), trivial, or color0.4 (0.1 to 1.0)",
            )
        return cls(name)

    @property
    def slots(self) -> int:
        """How many operations a view goes through, one after another."""
        return 1 if self.name == "trivial" else 3 if self.name.startswith("color") else int(self.name[-1])

    def draw(self, words: Words) -> NDArray[np.int32]:
        """Return a number and a magnitude for each slot, int32 (B, 2·slots).

        ``words(lane)`` gives arrays (B,) of 32-bit words; slot k uses lane 32 + k. What is drawn is frozen.
        """
        choices, drawn = _choices(self.name), []
        for slot in range(self.slots):
            word = words(_FIRST_LANE + slot)
            drawn.append(choices[below(word[0], len(choices))])
            if self.name.startswith("color"):
                order = np.array(list(permutations((BRIGHTNESS, CONTRAST, COLOR))), np.int32)
                drawn[-1][:, 0] = order[below(words(_FIRST_LANE)[1], len(order)), slot]
        return np.concatenate(drawn, axis=1)


def turns() -> NDArray[np.int32]:
    """Return cos and sin of −270 to 270 half degrees in 2^16ths, int32 (541, 2), by integer arithmetic alone."""
    sines = [_sine(half_degrees) for half_degrees in range(181)]
    sines += sines[179::-1]  # up to half a turn
    rows = []
    for angle in range(-MOST_HALF_DEGREES, MOST_HALF_DEGREES + 1):
        side, quarter = abs(angle), 180
        cosine = sines[quarter - side] if side <= quarter else -sines[side - quarter]
        rows.append((cosine, sines[side] if angle >= 0 else -sines[side]))
    return np.array(rows, np.int32)


def _sine(half_degrees: int) -> int:
    """Return the sine of up to 180 half degrees in 2^16ths, rounded to nearest."""
    x = (_PI * half_degrees << (16 + _TAIL)) // (360 * 10**40)
    total, term, n = 0, x, 1
    while term:
        total += term
        term = -term * x * x // ((n + 1) * (n + 2)) >> (2 * (16 + _TAIL))
        n += 2
    return (total + (1 << (_TAIL - 1))) >> _TAIL


@cache
def _choices(name: str) -> NDArray[np.int32]:
    """Return the equally likely pairs (operation, magnitude) of a slot, int32 (choices, 2); their order is frozen."""
    if name == "trivial":
        rows = list(_trivial())
    elif name.startswith("color"):
        reach = _nearest(Fraction(name.removeprefix("color")) * ONE)
        rows = [(IDENTITY, factor) for factor in range(ONE - reach, ONE + reach + 1)]
    else:
        found = list(_rand(int(name.split("-")[1][1:])))
        rows = [*found, *[(IDENTITY, 0)] * len(found)]  # applied with probability 1/2
    return np.array(rows, np.int32)


def _rand(level: int) -> Iterator[tuple[int, int]]:
    """RandAugment's fifteen operations at a level of 0 to 10, with both signs."""
    part = Fraction(level, 10)
    enhance = _nearest((part * Fraction(9, 5) + Fraction(1, 10)) * ONE)
    magnitudes = {
        ROTATE: int(part * 60),
        POSTERIZE: int(part * 4),
        SOLARIZE: int(part * 256),
        SOLARIZE_ADD: int(part * 110),
        **dict.fromkeys((COLOR, CONTRAST, BRIGHTNESS, SHARPNESS), enhance),
        **dict.fromkeys((SHEAR_X, SHEAR_Y), _nearest(part * Fraction(3, 10) * 65536)),
        **dict.fromkeys((TRANSLATE_X, TRANSLATE_Y), _nearest(part * Fraction(9, 20) * 65536)),
    }
    for operation in range(AUTOCONTRAST, TRANSLATE_Y + 1):
        magnitude = magnitudes.get(operation, 0)
        yield operation, magnitude
        yield operation, -magnitude if operation in SIGNED else magnitude


def _trivial() -> Iterator[tuple[int, int]]:
    """TrivialAugment's fourteen operations in 31 bins, with both signs.

    Its translations of up to 32 pixels are 32/224 of a side, which is the same at the usual size.
    """
    for operation in range(TRANSLATE_Y + 1):
        if operation in (INVERT, SOLARIZE_ADD):
            continue
        for step in range(31):
            part = Fraction(step, 30)
            reach = _nearest(part * Fraction(99, 100) * ONE)
            for sign in (1, -1):
                magnitude = {
                    ROTATE: sign * int(part * MOST_HALF_DEGREES),
                    POSTERIZE: 8 - _nearest(part * 6),
                    # No value lies between a threshold and the next integer.
                    SOLARIZE: ceil(255 - part * 255),
                    **dict.fromkeys((COLOR, CONTRAST, BRIGHTNESS, SHARPNESS), ONE + sign * reach),
                    **dict.fromkeys((SHEAR_X, SHEAR_Y), sign * _nearest(part * Fraction(99, 100) * 65536)),
                    **dict.fromkeys(
                        (TRANSLATE_X, TRANSLATE_Y), sign * _nearest(part * Fraction(32, 224) * 65536)
                    ),
                }
                yield operation, magnitude.get(operation, 0)


def _nearest(number: Fraction) -> int:
    """Round to the nearest integer, halves up."""
    return int((number + Fraction(1, 2)) // 1)
