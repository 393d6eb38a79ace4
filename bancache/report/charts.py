"""Geometry of the charts: scales, round ticks, places of labels. ``charts.svg.j2`` draws them.

Sizes are in units of the view box, which are close to pixels on a phone and on a wide screen alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bancache.report.arms import ArmTable
from bancache.report.families import Family, number
from bancache.report.tables import Difference, Row

Points = Sequence[tuple[float, float]]
Ticks = Sequence[tuple[float, str]]

_BIN = ("low", "high", "count", "confidence", "accuracy")


@dataclass(frozen=True)
class Scale:
    """Maps values from low to high linearly onto coordinates from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """A drawing of a width and a height (with margins), its two scales and the ticks of its axes."""

    width: float
    height: float
    x: Scale
    y: Scale
    x_ticks: Ticks
    y_ticks: Ticks

    def path(self, values: Points) -> str:
        """Return the SVG path of straight lines through the points."""
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in values)


class Line(NamedTuple):
    """The values of one column over epochs: of each seed, and their mean; ``color`` counts the columns."""

    label: str
    color: int
    seeds: Sequence[Points]
    mean: Points
    label_y: float = 0.0


class Bin(NamedTuple):
    """Images with a top confidence from low to high: their number, mean confidence and accuracy."""

    low: float
    high: float
    images: float
    confidence: float
    accuracy: float

    @property
    def few(self) -> bool:
        """Whether the images are too few: the standard error of an accuracy of one half is over ten points."""
        return self.images < 25


def line_chart(lines: Sequence[Line]) -> tuple[Frame, list[Line]] | None:
    """Return the frame and the lines with the places of their labels; None if no line has two epochs."""
    drawn = [line for line in lines if len(line.mean) > 1]
    if not drawn:
        return None
    epochs, values = zip(*(point for line in drawn for seed in line.seeds for point in seed), strict=True)
    x, y = Scale(min(epochs), max(epochs), 42, 288), Scale(*padded(values), 216, 10)
    frame = Frame(360, 252, x, y, ticks(x.low, x.high, whole=True), ticks(y.low, y.high))
    places = apart([y(line.mean[-1][1]) for line in drawn], gap=15, low=14, high=214)
    return frame, [line._replace(label_y=place) for line, place in zip(drawn, places, strict=True)]


def error_chart(row: Row) -> tuple[Frame, list[Points]] | None:
    """Return the frame of a row's errors in per cent and a line for each seed; None for a single column."""
    if len(row.cells) < 2:
        return None
    x = Scale(-0.5, len(row.cells) - 0.5, 40, 386)
    y = Scale(*padded((100 * error for cell in row.cells for error in cell.errors), by=0.1), 228, 12)
    names = [(float(place), cell.column) for place, cell in enumerate(row.cells)]
    threads: dict[int, list[tuple[float, float]]] = {}
    for place, cell in enumerate(row.cells):
        for seed, error in zip(cell.seeds, cell.errors, strict=True):
            threads.setdefault(seed, []).append((place, 100 * error))
    return Frame(390, 260, x, y, names, ticks(y.low, y.high)), [threads[seed] for seed in sorted(threads)]


def arm_chart(table: ArmTable) -> Frame | None:
    """Return the frame of a study's differences in percentage points, one line for each arm; None without any."""
    if not table.differences:
        return None
    ends = [100 * end for d in table.differences for end in (0.0, d.mean, *(d.interval or ()))]
    x, names = Scale(*padded(ends), 130, 350), [row.name for row in table.rows if row.name != table.baseline]
    height = 24 * len(names) + 34
    y = Scale(-0.5, len(names) - 0.5, 6, height - 28)
    return Frame(360, height, x, y, ticks(x.low, x.high), [(float(n), name) for n, name in enumerate(names)])


def interval_scale(differences: Sequence[Difference]) -> Scale:
    """Return a scale for intervals in a table, which contains all of them and zero."""
    return Scale(
        *padded([0.0, *(end for d in differences for end in (d.mean, *(d.interval or ())))]), 10, 110
    )


def reliability_charts(family: Family) -> list[tuple[str, int, Frame, list[Bin]]]:
    """Return the label, color, frame and bins of each column that has a reliability diagram."""
    halves = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]
    frame = Frame(190, 230, Scale(0.0, 1.0, 30, 182), Scale(0.0, 1.0, 160, 8), halves[::2], halves)
    return [
        (column, color, frame, bins)
        for color, (column, results) in enumerate(family.columns.items())
        if (bins := pool_bins(result.record["test"].get("bins") for result in results))
    ]


def pool_bins(diagrams: Iterable[object]) -> list[Bin]:
    """Pool the reliability diagrams of several seeds, each image counting once.

    Anything but a list of bins, and a bin that is empty or lacks a number, is left out.
    """
    pooled: dict[tuple[float, float], list[Bin]] = {}
    for one in (one for diagram in diagrams if isinstance(diagram, list) for one in diagram):
        numbers = [number(one.get(name)) for name in _BIN] if isinstance(one, dict) else []
        there = [value for value in numbers if value is not None]
        if len(there) == len(_BIN) and (found := Bin(*there)).images > 0 and found.high > found.low:
            pooled.setdefault((found.low, found.high), []).append(found)
    result = []
    for (low, high), bins in sorted(pooled.items()):
        images = sum(one.images for one in bins)
        confidence = sum(one.images * one.confidence for one in bins) / images
        accuracy = sum(one.images * one.accuracy for one in bins) / images
        result.append(Bin(low, high, images, confidence, accuracy))
    return result


def ticks(low: float, high: float, *, about: int = 4, whole: bool = False) -> Ticks:
    """Return round values from low to high with labels, in steps of 1, 2 or 5 times a power of ten.

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
    """Return a range with some space above and below the values; it is never empty."""
    values = list(values)
    low, high = min(values), max(values)
    space = by * (high - low) or 0.05 * abs(high) or 0.05
    return low - space, high + space


def apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Move labels as little as needed so that neighbors are a gap apart and all lie from low to high."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed: list[float] = []
    for place in order:
        placed.append(max(min(max(wanted[place], low), high), placed[-1] + gap if placed else low))
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap if i + 1 < len(placed) else high)
    return [placed[order.index(place)] for place in range(len(wanted))]
