"""The frame of a chart in SVG: scales, round ticks, grid lines, a title that screen readers read.

Colours come from the page's style sheet by class, so that one drawing serves light and dark. Sizes are
in units of the view box, which are close to pixels on a phone and on a wide screen alike.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bancache.report.markup import Markup, element, join

COLOURS = 8


@dataclass(frozen=True)
class Scale:
    """Maps values from low to high onto pixels from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """A drawing area with a horizontal and a vertical scale.

    Attributes:
        width: Of the whole drawing, margins included.
        height: Of the whole drawing, margins included.
        x: Values to the right.
        y: Values upwards: its start is below its end.
    """

    width: float
    height: float
    x: Scale
    y: Scale

    def grid(self, xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]]) -> Markup:
        """Draw both axes: a line across at each tick of y, labels at all ticks."""
        left, right, bottom = self.x.start, self.x.end, self.y.start
        across = [
            element("line", class_="grid", x1=left, x2=right, y1=self.y(value), y2=self.y(value))
            for value, _ in ys
        ]
        beside = [
            element("text", label, class_="tick", x=left - 6, y=self.y(value) + 3.5, text_anchor="end")
            for value, label in ys
        ]
        below = [
            element("text", label, class_="tick", x=self.x(value), y=bottom + 15, text_anchor="middle")
            for value, label in xs
        ]
        floor = element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
        return join([*across, floor, *beside, *below])

    def drawing(self, title: str, description: str, *pieces: Markup) -> Markup:
        """Close the drawing with its title and a description in words of what it shows."""
        content = join(pieces)
        # Unique on the page, and the same each time the same report is written.
        name = "c" + hashlib.sha256(f"{title}{description}{content}".encode()).hexdigest()[:10]
        return element(
            "svg",
            element("title", title, id=f"{name}t"),
            element("desc", description, id=f"{name}d"),
            content,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            role="img",
            aria_labelledby=f"{name}t {name}d",
        )


def ticks(low: float, high: float, *, about: int = 4, whole: bool = False) -> list[tuple[float, str]]:
    """Give round values from low to high with their labels, in steps of 1, 2 or 5 times a power of ten.

    >>> [label for _, label in ticks(0.0, 1.0)]
    ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.75)
    if whole:
        step = max(1.0, step)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(place * step, f"{place * step:.{decimals}f}") for place in range(first, last + 1)]


def padded(values: Iterable[float], *, by: float = 0.06) -> tuple[float, float]:
    """Give a range that leaves some air above and below the values, and is never empty."""
    values = list(values)
    low, high = min(values), max(values)
    air = by * (high - low) or 0.05 * abs(high) or 0.05
    return low - air, high + air


def apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Move labels as little as needed so that neighbours are a gap apart and all lie from low to high."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed = [min(max(wanted[place], low), high) for place in order]
    for place in range(1, len(placed)):
        placed[place] = max(placed[place], placed[place - 1] + gap)
    for place in range(len(placed) - 1, -1, -1):
        limit = high if place == len(placed) - 1 else placed[place + 1] - gap
        placed[place] = min(placed[place], limit)
    result = [0.0] * len(wanted)
    for place, value in zip(order, placed, strict=True):
        result[place] = value
    return result


def path(points: Iterable[tuple[float, float]]) -> str:
    """Write straight lines through the points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
