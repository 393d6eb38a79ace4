"""The rooms of the package and who imports whom, read from the source and from the import contract.

``pyproject.toml`` alone states the order of the layers. Everything here is drawn from it and from the imports that
`ast` finds, those under ``TYPE_CHECKING`` and inside functions included.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bancache"
COMMANDS = "cli"

# The way of one image and of its logits: which room does what, in this order.
WAY = (
    ("sources", "decodes the pictures once and gives `uint8` arrays with a fingerprint of content and order"),
    ("views", "computes what the view of `(seed, sample, view_index)` shows and renders the pixels"),
    ("models", "builds the teacher from its checkpoint and runs its forward pass on those pixels"),
    ("encodings", "turns float32 logits into codes of one byte a class and measures what that loses"),
    ("dumping", "drives steps 1 to 4 for every view of every image, and writes in the background"),
    ("cache", "stores the codes, one shard at a time, with checksums and a manifest"),
    ("loader", "renders the same view again for the student and reads and decodes its soft targets"),
    ("losses", "compares the student's logits with the soft targets and the label"),
    ("training", "takes the optimizer's step and saves the state; its checkpoint is the next teacher"),
)

Graph = Mapping[str, set[str]]


def layers() -> list[list[str]]:
    """Return the rooms of each layer, top layer first, as the import contract lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (listed,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in listed]


def modules() -> dict[str, Path]:
    """Return every module of the library with its file, but not the package itself, which only points into it."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    del found[PACKAGE.name]
    return found


def imports() -> dict[str, set[str]]:
    """Return which modules of the library each of them imports."""
    known = modules()
    return {name: set(_imported(ast.parse(file.read_text()), known)) - {name} for name, file in known.items()}


def _imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in known:
                    yield submodule
                elif node.module in known:
                    yield node.module


def by_room(graph: Graph) -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    rooms: dict[str, set[str]] = {}
    for name, others in graph.items():
        rooms.setdefault(_room(name), set()).update(map(_room, others))
    return {room: others - {room} for room, others in rooms.items()}


def _room(module: str) -> str:
    return module.split(".")[1]


def circle(graph: Graph) -> list[str]:
    """Return a path of imports that ends where it begins, or nothing.

    >>> circle({"a": {"b"}, "b": {"c"}, "c": set()}), len(circle({"a": {"b"}, "b": {"a"}}))
    ([], 3)
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def direct(graph: Graph) -> dict[str, set[str]]:
    """Leave out every import that a longer path implies, so that a drawing stays readable.

    >>> direct({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    {'a': {'b'}, 'b': {'c'}, 'c': set()}
    """
    reached: dict[str, set[str]] = {}
    for room in TopologicalSorter(graph).static_order():
        reached[room] = set(graph[room]).union(*(reached[other] for other in graph[room]))
    return {
        room: others - set().union(*(reached[other] for other in others)) for room, others in graph.items()
    }


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    file = PACKAGE / f"{room}.py"
    tree = ast.parse((file if file.exists() else PACKAGE / room / "__init__.py").read_text())
    first = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return first.replace("``", "`").replace("|", "\\|")


def order() -> str:
    """Return the layers as indented lines, top layer first."""
    return "\n".join(f"    {line}" for line in [COMMANDS, *(" | ".join(layer) for layer in layers())])


def way() -> str:
    """Return the way of an image and of its logits as a numbered list."""
    return "\n".join(f"{number}. `{room}` {does}." for number, (room, does) in enumerate(WAY, 1))


def table() -> str:
    """Return what each room is for and which rooms it imports."""
    graph = by_room(imports())
    rows = [
        f"| `{room}` | {purpose(room)} | {', '.join(f'`{other}`' for other in sorted(graph[room])) or '–'} |"
        for layer in layers()
        for room in layer
    ]
    return "\n".join(["| room | what it holds | imports |", "| --- | --- | --- |", *rows])


_WIDTH, _ROW, _BOX, _HEIGHT = 840, 92, 96, 38


def drawing() -> str:
    """Return the rooms as an SVG: a row for each layer, an arrow for each direct import, numbers along the way."""
    rows = [[COMMANDS], *layers()]
    graph = {**by_room(imports()), COMMANDS: {room for layer in layers() for room in layer}}
    place = {
        room: (_WIDTH * (column + 1) / (len(row) + 1), 40 + _ROW * number)
        for number, row in enumerate(rows)
        for column, room in enumerate(row)
    }
    arrows = [
        _arrow(*place[room], *place[other])
        for room, others in sorted(direct(graph).items())
        for other in sorted(others)
    ]
    boxes = [_box(room, *place[room]) for row in rows for room in row]
    height = 80 + _ROW * (len(rows) - 1)
    return _FRAME.format(width=_WIDTH, height=height, arrows="\n".join(arrows), boxes="\n".join(boxes))


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    top, bottom = y + _HEIGHT / 2, to_y - _HEIGHT / 2 - 2
    middle = (top + bottom) / 2
    # An arrow past a room that lies straight between goes around it.
    aside = _BOX if x == to_x and bottom - top > _ROW else 0
    curve = f"C{x + aside:.0f} {middle:.0f} {to_x + aside:.0f} {middle:.0f} {to_x:.0f} {bottom:.0f}"
    return f'    <path d="M{x:.0f} {top:.0f} {curve}"/>'


def _box(room: str, x: float, y: float) -> str:
    left, top = x - _BOX / 2, y - _HEIGHT / 2
    lines = [
        f'  <rect class="box" x="{left:.0f}" y="{top:.0f}" width="{_BOX}" height="{_HEIGHT}" rx="6"/>',
        f'  <text x="{x:.0f}" y="{y + 5:.0f}">{room}</text>',
    ]
    for number, (step, _) in enumerate(WAY, 1):
        if step == room:
            lines += [
                f'  <circle cx="{left:.0f}" cy="{top:.0f}" r="10"/>',
                f'  <text class="step" x="{left:.0f}" y="{top + 4:.0f}">{number}</text>',
            ]
    return "\n".join(lines)


_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t" \
font-family="sans-serif" font-size="14" text-anchor="middle">
  <title id="t">The rooms of bancache; arrows are imports, numbers the way of an image and its logits</title>
  <style>
    .page {{ fill: #fafafa }} .box {{ fill: #fff; stroke: #455a64; stroke-width: 1.5 }} text {{ fill: #263238 }}
    path {{ fill: none; stroke: #90a4ae; stroke-width: 1.2 }} marker path {{ fill: #90a4ae; stroke: none }}
    circle {{ fill: #00695c }} .step {{ fill: #fff; font-size: 11px; font-weight: bold }}
    @media (prefers-color-scheme: dark) {{
      .page {{ fill: #1e2129 }} .box {{ fill: #2a2e38; stroke: #90a4ae }} text {{ fill: #eceff1 }}
      path {{ stroke: #607d8b }} marker path {{ fill: #607d8b }} circle {{ fill: #26a69a }} .step {{ fill: #10231f }}
    }}
  </style>
  <defs>
    <marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
      <path d="M0 0 L10 5 L0 10 z"/>
    </marker>
  </defs>
  <rect class="page" width="{width}" height="{height}" rx="8"/>
  <g style="marker-end: url(#a)">
{arrows}
  </g>
{boxes}
</svg>
"""
