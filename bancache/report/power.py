"""How many seeds a comparison needs: the power of a paired t test."""

from __future__ import annotations

import math

_MOST = 1 << 20
# Probability of seeing a difference, and of seeing one where there is none.
_ENOUGH, _LEVEL = 0.8, 0.05


def seeds_needed(spread: float, difference: float = 0.005) -> int | None:
    """Return the smallest number of paired seeds that shows a difference with a power of 80 %; None above a million.

    The two-sided paired t test at 5 % has the power of the noncentral t distribution with n - 1 degrees of freedom and
    noncentrality ``difference`` √n / ``spread`` (Cohen, "Statistical Power Analysis", 1988, chapter 2).

    Args:
        spread: Sample standard deviation of the differences, a fraction of one like ``difference``. That of few seeds is
            rough, and so is the result: it goes with the spread's square.
        difference: The true mean difference that is to be seen; 0.005 is half a point.

    >>> seeds_needed(0.01), seeds_needed(0.005)
    (34, 10)
    """
    few, many = 1, 2
    while _power(many, spread, difference) < _ENOUGH:
        few, many = many, 2 * many
        if many > _MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _power(middle, spread, difference) >= _ENOUGH else (middle, many)
    return many


def _power(seeds: int, spread: float, difference: float) -> float:
    from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]

    if spread < abs(difference) / 1000:
        return 1.0  # scipy has no such values
    edge, center = float(stdtrit(seeds - 1, 1 - _LEVEL / 2)), abs(difference) * math.sqrt(seeds) / spread
    return 1 - float(nctdtr(seeds - 1, center, edge))  # below -edge lies next to nothing
