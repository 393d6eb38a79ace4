"""Charts of training and of calibration: lines over epochs, and the reliability diagram."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bancache.report.axes import COLOURS, Frame, Scale, apart, padded, path, ticks
from bancache.report.markup import Markup, element, join

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Series:
    """What one generation contributes to a chart.

    Attributes:
        label: Written at the end of its line.
        colour: Its place among the page's colours; counted on from the first when they are used up.
        seeds: One line for each seed, as (epoch, value) in order of epochs.
    """

    label: str
    colour: int
    seeds: tuple[Points, ...]

    def mean(self) -> Points:
        """Give the mean over the seeds, at the epochs that every seed has."""
        values = [dict(points) for points in self.seeds]
        common = sorted(set(values[0]).intersection(*values[1:]))
        return tuple((epoch, statistics.fmean(value[epoch] for value in values)) for epoch in common)


@dataclass(frozen=True)
class Bin:
    """Images whose top confidence lies from low to high: how sure the net was, how often it was right."""

    low: float
    high: float
    count: float
    confidence: float
    accuracy: float


def line_chart(title: str, series: Sequence[Series]) -> Markup | None:
    """Draw values over epochs: a line for each generation's mean, thin ones for its seeds.

    None where nothing has two epochs, because then there is no line to draw.
    """
    drawn = [(one, mean) for one in series if one.seeds and len(mean := one.mean()) > 1]
    if not drawn:
        return None
    everything = [point for one, _ in drawn for points in one.seeds for point in points]
    low, high = padded(value for _, value in everything)
    epochs = [epoch for epoch, _ in everything]
    frame = Frame(360, 250, Scale(min(epochs), max(epochs), 40, 298), Scale(low, high, 216, 10))
    wanted = [frame.y(mean[-1][1]) for _, mean in drawn]
    places = apart(wanted, gap=13, low=14, high=214)
    lines = [_line(frame, one, mean) for one, mean in drawn]
    labels = [_end(frame, one, mean, place) for (one, mean), place in zip(drawn, places, strict=True)]
    name = element("text", "epoch", class_="tick", x=frame.x.end, y=246, text_anchor="end")
    said = "; ".join(
        f"{one.label} ends at {mean[-1][1]:.4g} (mean of {len(one.seeds)})" for one, mean in drawn
    )
    grid = frame.grid(ticks(min(epochs), max(epochs), whole=True), ticks(low, high))
    return frame.drawing(title, f"Lines over epochs. {said}.", grid, *lines, *labels, name)


def reliability_chart(title: str, colour: int, bins: Sequence[Bin]) -> Markup | None:
    """Draw accuracy against confidence, the gap to a calibrated net, and below where the images are.

    None where no bin holds an image.
    """
    filled = [one for one in bins if one.count > 0]
    if not filled:
        return None
    frame = Frame(190, 226, Scale(0.0, 1.0, 30, 182), Scale(0.0, 1.0, 160, 8))
    share = Scale(0.0, max(one.count for one in filled), 0.0, 26.0)
    shown = [(value, f"{value:g}") for value in (0, 0.5, 1)]
    diagonal = element("path", class_="ideal", d=path([(frame.x(0), frame.y(0)), (frame.x(1), frame.y(1))]))
    bars = [_bar(frame, share, one, colour) for one in filled]
    below = [
        element("text", "confidence", class_="tick", x=106, y=frame.y.start + 15, text_anchor="middle"),
        element("text", "share of images", class_="tick", x=106, y=222, text_anchor="middle"),
    ]
    ends = [(value, label) for value, label in shown if value != 0.5]
    said = "; ".join(f"at confidence {one.confidence:.2f} accuracy {one.accuracy:.2f}" for one in filled)
    grid = frame.grid(ends, shown)
    return frame.drawing(title, f"Accuracy against confidence: {said}.", grid, *bars, diagonal, *below)


def pool_bins(diagrams: Sequence[object]) -> tuple[Bin, ...]:
    """Put the reliability diagrams of several seeds into one, each image counting once.

    What is not a list of bins, or a bin that is empty or lacks a number, is left out.
    """
    pooled: dict[tuple[float, float], list[Mapping[str, Any]]] = {}
    for diagram in diagrams:
        for one in diagram if isinstance(diagram, list) else []:
            if _is_filled_bin(one):
                pooled.setdefault((one["low"], one["high"]), []).append(one)
    return tuple(_pool(low, high, bins) for (low, high), bins in sorted(pooled.items()))


def _is_filled_bin(one: object) -> bool:
    names = ("low", "high", "count", "confidence", "accuracy")
    if not isinstance(one, dict) or not all(isinstance(one.get(name), int | float) for name in names):
        return False
    return bool(one["count"] > 0 and one["high"] > one["low"])


def _pool(low: float, high: float, bins: Sequence[Mapping[str, Any]]) -> Bin:
    count = sum(one["count"] for one in bins)
    confidence = sum(one["count"] * one["confidence"] for one in bins) / count
    accuracy = sum(one["count"] * one["accuracy"] for one in bins) / count
    return Bin(low, high, count, confidence, accuracy)


def _line(frame: Frame, one: Series, mean: Points) -> Markup:
    def drawn(points: Points, kind: str) -> Markup:
        return element("path", class_=kind, d=path((frame.x(e), frame.y(v)) for e, v in points))

    seeds = [drawn(points, "seed") for points in one.seeds] if len(one.seeds) > 1 else []
    return element("g", *seeds, drawn(mean, "mean"), class_=f"s{one.colour % COLOURS}")


def _end(frame: Frame, one: Series, mean: Points, place: float) -> Markup:
    epoch, value = mean[-1]
    x, y = frame.x(epoch), frame.y(value)
    leader = element("path", class_="leader", d=path([(x + 3, y), (frame.x.end + 6, place)]))
    dot = element("circle", cx=x, cy=y, r=2.6)
    label = element("text", one.label, class_="label", x=frame.x.end + 8, y=place + 3.5)
    said = element("title", f"{one.label}: {value:.4g} at epoch {epoch:g}")
    return element("g", said, leader, dot, label, class_=f"s{one.colour % COLOURS}")


def _bar(frame: Frame, share: Scale, one: Bin, colour: int) -> Markup:
    left, right = frame.x(one.low) + 0.5, frame.x(one.high) - 0.5
    right = max(right, left + 0.5)
    top, wanted = frame.y(one.accuracy), frame.y(one.confidence)
    said = f"confidence {one.low:.2f} to {one.high:.2f}: {one.accuracy:.1%} right, {one.count:,.0f} images"
    height = share(one.count)
    return join(
        [
            element(
                "g",
                element("title", said),
                element("rect", class_="bar", x=left, width=right - left, y=top, height=frame.y.start - top),
                element(
                    "rect",
                    class_="gap",
                    x=left,
                    width=right - left,
                    y=min(top, wanted),
                    height=abs(top - wanted),
                ),
                element("rect", class_="bar", x=left, width=right - left, y=208 - height, height=height),
                class_=f"s{colour % COLOURS}",
            )
        ]
    )
