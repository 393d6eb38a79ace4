"""Charts of test errors: every seed's as a dot, and confidence intervals beside the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence

from bancache.report.axes import COLOURS, Frame, Scale, padded, path, ticks
from bancache.report.markup import Markup, element
from bancache.report.tables import Cell, Difference, Row, points


def error_chart(title: str, row: Row) -> Markup | None:
    """Draw the test error of each column: a dot for each seed, a bar at the mean, lines joining a seed's dots.

    None where there are not two columns to compare.
    """
    if len(row.cells) < 2:
        return None
    low, high = padded((100 * error for cell in row.cells for error in cell.errors), by=0.1)
    frame = Frame(420, 260, Scale(-0.5, len(row.cells) - 0.5, 40, 414), Scale(low, high, 228, 12))
    names = [(float(place), cell.column) for place, cell in enumerate(row.cells)]
    seeds = sorted({seed for cell in row.cells for seed in cell.seeds})
    said = "; ".join(
        f"{cell.column} {100 * cell.mean:.2f} % (seeds: {len(cell.seeds)})" for cell in row.cells
    )
    return frame.drawing(
        title,
        f"Test error: {said}.",
        frame.grid(names, ticks(low, high)),
        *(_threads(frame, row, seed) for seed in seeds),
        *(_cell(frame, place, cell) for place, cell in enumerate(row.cells)),
    )


def interval_bars(row: Row, differences: Sequence[Difference]) -> list[Markup]:
    """Draw differences of a row's columns, each as a dot with its confidence interval, on one scale that contains zero.

    They are small enough to stand in a table that has the same numbers in words, so they have no text.
    """
    ends = [0.0]
    for difference in differences:
        ends += [difference.mean, *(difference.interval or ())]
    x = Scale(*padded(ends), 4, 156)
    colours = {cell.column: place for place, cell in enumerate(row.cells)}
    return [_interval(x, difference, colours[difference.column]) for difference in differences]


def _threads(frame: Frame, row: Row, seed: int) -> Markup:
    found = [
        (frame.x(place), frame.y(100 * cell.errors[cell.seeds.index(seed)]))
        for place, cell in enumerate(row.cells)
        if seed in cell.seeds
    ]
    return element("path", class_="thread", d=path(found))


def _cell(frame: Frame, place: int, cell: Cell) -> Markup:
    x, y = frame.x(place), frame.y(100 * cell.mean)
    dots = [
        element("circle", element("title", _said(cell, seed, error)), cx=x, cy=frame.y(100 * error), r=3.2)
        for seed, error in zip(cell.seeds, cell.errors, strict=True)
    ]
    bar = element("line", class_="level", x1=x - 14, x2=x + 14, y1=y, y2=y)
    return element("g", bar, *dots, class_=f"s{place % COLOURS}")


def _said(cell: Cell, seed: int, error: float) -> str:
    return f"{cell.column}, seed {seed}: {100 * error:.2f} %"


def _interval(x: Scale, difference: Difference, colour: int) -> Markup:
    zero = element("line", class_="zero", x1=x(0), x2=x(0), y1=0, y2=22)
    pieces = [zero]
    if difference.interval is not None:
        low, high = difference.interval
        pieces.append(element("line", class_="interval", x1=x(low), x2=x(high), y1=11, y2=11))
    pieces.append(element("circle", cx=x(difference.mean), cy=11, r=4))
    name = f"{difference.column} against {difference.against}"
    pieces.append(element("title", f"{name}: {points(difference.mean)} points"))
    return element(
        "svg", *pieces, viewBox="0 0 160 22", class_=f"forest s{colour % COLOURS}", aria_hidden="true"
    )
