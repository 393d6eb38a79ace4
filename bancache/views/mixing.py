"""Mixing: which view a view is mixed with, and how much of each is seen.

There is no batch: the partner of a sample at a view index is found by a keyed permutation of the whole data set, so a
batch of any size, order or number of processes has the same pictures. The partner is shown as its own view at the same
view index. A data set of one picture has no other: it is mixed with itself, which changes nothing.

Sources: mixup, Zhang et al. (2018); CutMix, Yun et al. (2019). With both, either is as likely for a view, as in timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache, lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from bancache.views.boxes import Integers, Words, below
from bancache.views.record import LAMBDA, WHOLE
from bancache.views.shuffle import shuffled

_DOMAIN = 0x5AFE_0008
_FEW, _MOST_KEPT = 32, 1 << 17  # samples
_DIGITS, _WORDS = 120, 1 << 32  # the terms of the series for alpha 100 cancel out to some forty digits


@dataclass(frozen=True)
class Mixing:
    """The parameters of the Beta distributions of mixup and CutMix; None leaves one of them out."""

    mixup: Fraction | None
    cutmix: Fraction | None

    def draw(self, words: Words) -> tuple[Integers, ...]:
        """Return the share of the view itself in 256ths, and top, left, height and width of the cut in 2^16ths.

        Int64 (B,) each; views that are blended have a cut of height 0. Lanes 0 and 1 of ``words`` are used.
        """
        first, second = words(0), words(1)
        alphas = [alpha for alpha in (self.mixup, self.cutmix) if alpha is not None]
        shares = [_shares(first[1], alpha) for alpha in alphas]
        if self.mixup is None or self.cutmix is None:
            cuts, share = np.full(len(first[0]), self.mixup is None), shares[0]
        else:
            cuts = below(first[0], 2) == 1
            share = np.where(cuts, shares[1], shares[0])
        side = _cut_sides()[share]
        edges = []
        for center in (below(second[0], WHOLE), below(second[1], WHOLE)):
            start, stop = (np.clip(center + move, 0, WHOLE) for move in (-(side // 2), side - side // 2))
            edges.append((start * cuts, (stop - start) * cuts))
        (top, height), (left, width) = edges
        empty = (height == 0) | (width == 0)
        share = np.where(cuts & empty, LAMBDA, share)  # nothing is cut: the view itself is all that is seen
        return share, top, left, height * ~empty, width * ~empty


def partners(seed: int, samples: Integers, view_indices: Integers, count: int) -> Integers:
    """Return the partner of each sample at its view index, int64 (B,), among ``count`` samples.

    It is the image of the sample under a random permutation of each view index; a sample that would be its own partner
    has the next one instead.
    """
    if len(samples) >= _FEW and count <= _MOST_KEPT and (view_indices == view_indices[0]).all():
        return _partners_of_all(seed, int(view_indices[0]), count)[samples]
    found = shuffled(seed, view_indices.astype(np.uint64), samples.astype(np.uint64), count, domain=_DOMAIN)
    return np.where(found == samples, (found + 1) % count, found)


@lru_cache(maxsize=2)
def _partners_of_all(seed: int, view_index: int, count: int) -> Integers:
    """Return the partner of every sample at one view index, int64 (count,).

    An epoch shows one view index, and for the few samples of a batch the cipher costs thirty times as much a sample.
    """
    samples, indices = np.arange(count, dtype=np.uint64), np.full(count, view_index, np.uint64)
    found = shuffled(seed, indices, samples, count, domain=_DOMAIN)
    return np.where(found == samples.view(np.int64), (found + 1) % count, found)


def _shares(word: NDArray[np.uint64], alpha: Fraction) -> Integers:
    """Return λ in 256ths, distributed as Beta(alpha, alpha), for random words of 32 bits."""
    return np.searchsorted(_thresholds(alpha), word, side="right").astype(np.int64)


@cache
def _thresholds(alpha: Fraction) -> NDArray[np.uint64]:
    """Return where the cumulative distribution of Beta(alpha, alpha) passes (k + 1/2) / 256, in 2^32ths."""
    with localcontext(Context(prec=_DIGITS)):
        exact = Decimal(alpha.numerator) / alpha.denominator
        half = _incomplete(Decimal("0.5"), exact)
        lower = [_incomplete(Decimal(2 * k + 1) / (2 * LAMBDA), exact) / half / 2 for k in range(LAMBDA // 2)]
        words = [int((part * _WORDS).to_integral_value()) for part in lower]
    return np.array([*words, *(_WORDS - word for word in reversed(words))], np.uint64)


def _incomplete(x: Decimal, alpha: Decimal) -> Decimal:
    """Return the incomplete Beta function B(x; alpha, alpha) for x up to 1/2, by its power series."""
    total, term, n = Decimal(0), Decimal(1), 0
    while n == 0 or abs(term) > Decimal(10) ** -_DIGITS:
        total += term / (alpha + n)
        n += 1
        term *= (n - alpha) * x / n
        if term == 0:
            break
    return total * x**alpha


@cache
def _cut_sides() -> Integers:
    """Return the side of the cut for each share of the view itself: the root of the rest, in 2^16ths."""
    return np.array([isqrt((LAMBDA - share) << 24) for share in range(LAMBDA + 1)], np.int64)
