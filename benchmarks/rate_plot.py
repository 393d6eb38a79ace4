"""Rate against distortion as a drawing: bytes of an entry to the right, divergence upwards, both logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bancache.report.charts import Frame, Scale
from bancache.report.rendering import environment

WIDTH, HEIGHT = 720, 460
_LETTER, _LINE = 6.1, 13.0
_FLOOR = "the teacher in bfloat16 against itself"

# Ink on paper, and its counterpart at night; the first three colors differ also for those who see fewer.
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #3b3f46 }
.tick { fill: #6a7078; font-size: 10.5px }
.grid { stroke: #e3e5e8 } .axis { stroke: #9aa0a8 } .floor { stroke: #6a7078; stroke-dasharray: 5 4 }
.root { fill: #0b62a8; stroke: #0b62a8 } .dense { fill: #b35a00; stroke: #b35a00 }
.topk { fill: #7a3e9d; stroke: #7a3e9d } .rival { fill: none; stroke: #6a7078; stroke-width: 1.6 }
path { fill: none !important }
@media (prefers-color-scheme: dark) {
text { fill: #d8dbe0 } .tick { fill: #9aa0a8 } .grid { stroke: #33373d } .axis { stroke: #6a7078 }
.floor { stroke: #9aa0a8 } .root { fill: #6db3f2; stroke: #6db3f2 } .dense { fill: #f0a35e; stroke: #f0a35e }
.topk { fill: #c79be6; stroke: #c79be6 } .rival { stroke: #9aa0a8 }
}
"""


@dataclass(frozen=True)
class Point:
    """One code: its name, its family (``root``, ``dense``, ``topk`` or ``rival``), bytes of an entry, nats."""

    name: str
    family: str
    size: float
    loss: float


def drawing(title: str, points: Sequence[Point], *, noise: float | None) -> str:
    """Return a standalone SVG; codes without loss have no place on a logarithmic scale and are left out."""
    points = [point for point in points if point.loss > 1e-11]
    x = _scale([p.size for p in points], 52, WIDTH - 14)
    y = _scale([p.loss for p in points] + ([noise] if noise else []), HEIGHT - 44, 30)
    frame = Frame(WIDTH, HEIGHT, x, y, _decades(x, plain=True), _decades(y, plain=False))
    template = environment("html").from_string(Path(__file__).with_suffix(".svg.j2").read_text())
    return template.render(
        title=title,
        style=STYLE,
        frame=frame,
        points=points,
        marks=[(point.family, *_place(frame, point)) for point in points],
        names=_names(frame, points, noise),
        noise=_FLOOR,
        level=y(math.log10(noise)) if noise else None,
    )


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    logs = [math.log10(value) for value in values]
    return Scale(min(logs) - 0.15, max(logs) + 0.2, start, end)


def _decades(scale: Scale, *, plain: bool) -> list[tuple[float, str]]:
    factors = (1, 2, 5) if plain else (1,)
    found = []
    for power in range(math.floor(scale.low), math.ceil(scale.high) + 1):
        for factor in factors:
            place = power + math.log10(factor)
            if scale.low <= place <= scale.high:
                found.append((place, f"{factor * 10.0**power:g}" if plain else f"1e{power}"))
    return found


def _place(frame: Frame, point: Point) -> tuple[float, float]:
    return frame.x(math.log10(point.size)), frame.y(math.log10(point.loss))


def _names(frame: Frame, points: Sequence[Point], noise: float | None) -> list[tuple[str, float, float]]:
    """Write each name beside its mark, at the first of some places where nothing else is."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in (_place(frame, point) for point in points)]
    if noise:
        left, level = frame.x.start + 6, frame.y(math.log10(noise))
        taken.append((left, level - 5 - _LINE, left + len(_FLOOR) * _LETTER, level + 2))
    names = []
    for point in points:
        x, y = _place(frame, point)
        wide = len(point.name) * _LETTER
        places = [
            (left, top)
            for away in (0.0, 1.0, 2.0)
            for left, top in (
                (x + 8, y - 7 + away * _LINE),
                (x - 8 - wide, y - 7 + away * _LINE),
                (x + 8, y - 7 - away * _LINE),
                (x - 8 - wide, y - 7 - away * _LINE),
                (x - wide / 2, y - 20 - away * _LINE),
                (x - wide / 2, y + 7 + away * _LINE),
            )
        ]
        free = [p for p in places if _free(frame, (*p, p[0] + wide, p[1] + _LINE), taken)]
        left, top = free[0] if free else places[0]
        taken.append((left, top, left + wide, top + _LINE))
        names.append((point.name, left, top + 10.5))
    return names


Box = tuple[float, float, float, float]


def _free(frame: Frame, box: Box, taken: Sequence[Box]) -> bool:
    inside = box[0] >= frame.x.start + 2 and box[2] <= WIDTH - 2 and box[1] >= 20 and box[3] <= frame.y.start
    return inside and all(
        box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        for other in taken
    )
