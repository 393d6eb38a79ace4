"""What is known of a GPU? The part of docs/performance.md that is made of the lines under benchmarks/results/h200."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.readme import GPU, gpu_step, read_lines

Line = dict[str, Any]
# What tells rows apart, beside their figures.
_KEYS = ("part", "net", "batch", "classes", "entries", "kernel", "rows", "views", "variant", "students")
_STEPS = (
    ("device", "targets on the GPU"),
    ("pinned", "page-locked"),
    ("disk", "on disk"),
    ("static, compiled", "static, compiled"),
    ("compiled", "compiled"),
)
_LOOPS = (
    ("cache", "from the cache"),
    ("cache, compiled", "the same, compiled"),
    ("float16 resident", "by hand: float16 logits resident"),
    ("float16 resident, reduce-overhead", "the same, reduce-overhead"),
    ("teacher online", "by hand: teacher online"),
    ("teacher online, compiled", "the same, compiled"),
    ("labels alone", "by hand: labels alone"),
)
_DUMPED = ("bare / dump", "bare / dump after its start")


def part(folder: Path = GPU) -> list[str]:
    """Return the lines of the whole part."""
    return [_TITLE, *_measured(folder / "gpu.jsonl"), "", _FIRST, *_first_steps(), "", _first_dump()]


def last_rows(file: Path) -> list[Line]:
    """Return the rows with figures of a file of ``python -m benchmarks.gpu``; of a part and variant the last one counts.

    Rows of a rehearsal do not count. A row that says why something has no figures stays if no figures follow it.
    """
    found: dict[tuple[Any, ...], Line] = {}
    for line in read_lines(file) if file.exists() else []:
        told = "failed" in line or "skipped" in line
        if (
            line["part"] == "tests"
            or line["rehearsal"]
            or not (told or any(isinstance(value, dict) for value in _figures(line)))
        ):
            continue
        name = tuple(_hashable(line.get(key)) for key in _KEYS)
        if not told or name not in found:
            found[name] = line
    return list(found.values())


def _figures(line: Line) -> list[Any]:
    return [value for key, value in line.items() if key != "environment"]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | None) else repr(value)


def _measured(file: Path) -> list[str]:
    rows = last_rows(file)
    tables = {name: make([row for row in rows if row["part"] == name]) for name, make in _PARTS.items()}
    missing = [name for name, table in tables.items() if not table]
    lines = [*_setting(rows), *_tests(file)]
    failed = [" ".join(str(row[key]) for key in _KEYS if key in row) for row in rows if "failed" in row]
    if failed:
        lines += [f"Failed: {'; '.join(failed)}.", ""]
    if missing:
        lines.append(f"Not measured yet by `python -m benchmarks.gpu`: {', '.join(missing)}.")
    for name, table in tables.items():
        if table:
            lines += ["", _ABOUT[name], "", *table]
    return lines


def _setting(rows: list[Line]) -> list[str]:
    if not rows:
        return []
    about = [row["environment"] for row in rows]
    devices, versions, commits = (
        ", ".join(dict.fromkeys(values))
        for values in (
            (place.get("gpu", place["device"]) for place in about),
            (place["torch"] for place in about),
            (row["commit"] for row in rows),
        )
    )
    return [f"{devices}, torch {versions}, commit {commits}; medians with quartiles.", ""]


def _tests(file: Path) -> list[str]:
    lines = read_lines(file) if file.exists() else []
    found = [line for line in lines if line["part"] == "tests" and "passed" in line and not line["rehearsal"]]
    if not found:
        return []
    return [
        f"Of the tests that need a GPU, {found[-1]['passed']} passed and {len(found[-1]['failed'])} failed.",
        "",
    ]


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    marks = ["---"] + ["---:"] * (len(heads) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]


def _value(value: dict[str, float] | None, unit: str = "") -> str:
    if value is None:
        return ""
    return f"{value['median']:.3g}{unit} ({value['low']:.3g} to {value['high']:.3g})"


def _cell(row: Line | None) -> str:
    return "" if row is None else _value(row.get("ms"))


def _by_net(rows: list[Line]) -> dict[str, dict[str, Line]]:
    """Return the rows of each net and batch by variant."""
    found: dict[str, dict[str, Line]] = {}
    for row in rows:
        name = str(row.get("variant", row.get("students")))
        found.setdefault(f"{row['net']}, {row['batch']}", {})[name] = row
    return {net: of for net, of in found.items() if any("ms" in row for row in of.values())}


def _steps(rows: list[Line]) -> list[str]:
    def beside(row: Line | None) -> str:
        ratio = _value(row.get("ratio")) if row else ""
        return f"{_cell(row)}; {ratio}" if ratio else _cell(row)

    return _table(
        ["net, batch", "static", *(title for _, title in _STEPS), "aim, compiled"],
        [
            [net, _cell(of.get("static")), *(beside(of.get(name)) for name, _ in _STEPS), _aim(of)]
            for net, of in _by_net(rows).items()
        ],
    )


def _loops(rows: list[Line]) -> list[str]:
    return _table(
        ["net, batch", *(title for _, title in _LOOPS), "aim, compiled"],
        [[net, *(_cell(of.get(name)) for name, _ in _LOOPS), _aim(of)] for net, of in _by_net(rows).items()],
    )


def _aim(variants: dict[str, Line]) -> str:
    aims = [row["aim_compiled_ms"] for row in variants.values() if row.get("aim_compiled_ms")]
    return f"<= {aims[-1]}" if aims else ""


def _together(rows: list[Line]) -> list[str]:
    cells = []
    for net, of in _by_net(rows).items():
        for name, row in of.items():
            if "ms" in row:
                cells.append([net, name, _value(row["ms"]), _value(row["gain"]), row.get("aim", "")])
    return _table(["net, batch", "students", "a step of each, ms", "gain", "aim"], cells)


def _dumps(rows: list[Line]) -> list[str]:
    return _table(
        ["teacher, batch", "classes", "views", "dump, s", "bare, s", "by hand, s", *_DUMPED, "aim"],
        [
            [
                f"{row['net']}, {row['batch']}",
                f"{row['classes']:,}",
                f"{row['entries']:,}",
                *(_value(row.get(f"{name}_seconds")) for name in ("dump", "bare", "by hand")),
                *(_value(row[name]) for name in _DUMPED),
                row["aim"],
            ]
            for row in rows
            if "dump_seconds" in row
        ],
    )


def _kernels(rows: list[Line]) -> list[str]:
    cells = []
    for row in rows:
        if "microseconds" in row:
            size = [f"{row[key]:,} {key}" for key in ("rows", "classes") if key in row]
            batch = [f"batch {row['batch']:,}"] if "batch" in row else []
            beside = [key for key in row if key.endswith((" / kernel", "views a second"))]
            others = [f"{key} {_value(row[key])}" for key in beside]
            kernel = ", ".join([row["kernel"], *batch, *size])
            cells.append([kernel, _value(row["microseconds"]), "; ".join(others), row.get("aim", "")])
    return _table(["kernel", "µs", "beside it", "aim"], cells)


def _first_steps() -> list[str]:
    lines = [line for line in read_lines(GPU / "steps.jsonl") if not line["cudnn_benchmark"]]
    kinds = {(line["kind"], line["net"], bool(line["compiled"]), line.get("online")) for line in lines}
    columns = (("ours", False, None), ("ours", True, None), ("plain", False, True), ("plain", False, False))
    return _table(
        [
            "student, batch",
            "from the cache",
            "the same, compiled",
            "eager, teacher online",
            "eager, labels only",
        ],
        [
            [
                f"{model}, {batch}",
                *(
                    gpu_step(kind, model, compiled=compiled, online=online)
                    if (kind, model, compiled, online) in kinds
                    else ""
                    for kind, compiled, online in columns
                ),
            ]
            for model, batch in dict.fromkeys((line["net"], line["batch"]) for line in lines)
        ],
    )


def _first_dump() -> str:
    line = read_lines(GPU / "dumping.jsonl")[-1]
    ratio, seconds = line["bare / dump"], line["dump_seconds"]
    return (
        f"A dump of {line['entries']:,} views by {line['net'].upper()} took {seconds['median']:.2f} s "
        f"({seconds['low']:.2f} to {seconds['high']:.2f}); the bare forward pass takes {ratio['median']:.2f} "
        f"({ratio['low']:.2f} to {ratio['high']:.2f}) of that. The aim was {line['target']}: missed."
    )


_PARTS = {
    "steps": _steps,
    "loops": _loops,
    "dumps": _dumps,
    "side by side": _together,
    "kernels": _kernels,
}

_TITLE = """\
## On a GPU
"""

_ABOUT = {
    "steps": """\
Milliseconds of a training step in one CUDA graph, with its part of the epoch's beginning, by the place of the soft targets. A
*static* step reads one batch again and again, without an epoch around it. After the semicolon: static / this, of
compiled steps the compiled static one; the aims are 0.99, 0.98, 0.98 and 0.99.""",
    "loops": """\
Milliseconds of a step beside loops in plain torch: images on the GPU, crops by one gather, bfloat16 autocast, and the teacher
of the student's architecture or its float16 logits (`benchmarks/by_hand.py`).""",
    "dumps": """\
Whole dumps. *Bare* is as many forward passes of the teacher in one CUDA graph on images that are there already, *by hand* an eager
dump to one file. The ratios are the teacher's share, of the whole dump and without its start.""",
    "side by side": """\
Students in one process. *Gain*: as many times the step of one student, divided by this.""",
    "kernels": """\
Kernels, beside a copy of as many bytes or the same in torch; a ratio above 1 means that the kernel is faster.""",
}

_FIRST = """\
### A first run

One NVIDIA H200, torch 2.11, noise of CIFAR's size, before these benchmarks were written
([lines](../benchmarks/results/h200), with what made them): milliseconds of a training step, median and range of five timings.
"From the cache" is one replayed CUDA graph with images and soft targets on the GPU. "Eager" is a plain torch step with
bfloat16 autocast, channels_last, fused SGD and vectorized crops and flips. So the difference has two causes: no teacher, and
no launches from Python. The WRN-16-4 row shows them apart.
"""
