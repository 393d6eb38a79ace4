"""The GPU part of docs/performance.md is what the last lines of a run say; every figure in this file is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import gpu_page
from benchmarks.gpu import dumps, kernels, steps, together

ABOUT = {
    "commit": "made-up",
    "environment": {"device": "cuda", "gpu": "a made-up GPU", "torch": "0.0"},
    "rehearsal": False,
}


def figure(median: float) -> dict[str, float]:
    return {"median": median, "low": median / 2, "high": 2 * median, "runs": 3}


STEPS: dict[str, Any] = {"part": "steps", "net": "wrn-0-0", "batch": 8}
LOOPS: dict[str, Any] = {**STEPS, "part": "loops"}
TOGETHER: dict[str, Any] = {**STEPS, "part": "side by side"}
DUMP: dict[str, Any] = {"part": "dumps", "net": "wrn-0-0", "classes": 1000, "batch": 8, "entries": 4321}
KERNEL: dict[str, Any] = {"part": "kernels", "kernel": "loss", "batch": 8, "classes": 10}
ROWS: list[dict[str, Any]] = [
    {"part": "tests", "passed": 12, "failed": ["tests/a.py::one"], "skipped_tests": 0},
    {**STEPS, "variant": "static", "ms": figure(1.0), "images": 64},
    {**STEPS, "variant": "disk", "ms": figure(2.0), "ratio": figure(0.5), "aim": "ratio >= 0.98"},
    {**LOOPS, "variant": "cache", "prepared_seconds": 3.0},
    {**LOOPS, "variant": "cache", "ms": figure(3.0), "aim_compiled_ms": 5.2},
    {**LOOPS, "variant": "teacher online", "failed": "RuntimeError: made up"},
    {**TOGETHER, "students": "4", "ms": figure(5.0), "gain": figure(1.75), "aim": "gain >= 2"},
    {**TOGETHER, "students": "1", "ms": figure(2.0), "gain": figure(1.0)},
    {
        **DUMP,
        "dump_seconds": figure(6.0),
        "bare_seconds": figure(5.5),
        "bare / dump": figure(0.875),
        "bare / dump after its start": figure(0.925),
        "start_seconds": figure(0.1),
        "aim": "bare / dump after its start >= 0.95",
    },
    {**KERNEL, "microseconds": figure(7.0), "mixed, microseconds": figure(8.0), "mixed / kernel": figure(1.125)},
    {**KERNEL, "kernel": "views", "skipped": "takes about 4 s, and 1 are left"},
    {**STEPS, "variant": "disk", "ms": figure(2.5), "ratio": figure(0.4)},
    {**STEPS, "variant": "compiled", "ms": figure(4.0), "ratio": figure(0.9), "aim_compiled_ms": 5.2},
    {**KERNEL, "kernel": "resampling", "microseconds": figure(9.0), "views a second": figure(64.0)},
    {**STEPS, "variant": "static", "ms": figure(99.0), "rehearsal": True},
    {"part": "end", "why": "everything measured", "seconds": 12.0},
]  # fmt: skip


def page(folder: Path, rows: list[dict[str, Any]]) -> str:
    lines = [json.dumps({"time": "2000-01-01", **ABOUT, **row}) + "\n" for row in rows]
    (folder / "gpu.jsonl").write_text("".join(lines))
    return "\n".join(gpu_page.part(folder))


def cells(page: str, first: str) -> list[str]:
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")[1:]]


def part_of(page: str, name: str) -> str:
    return page.partition(gpu_page._ABOUT[name])[2].partition("\n\n")[2].partition("\n\n")[0]


def test_a_new_file_of_lines_fills_every_table(tmp_path: Path) -> None:
    found = page(tmp_path, ROWS)
    assert "a made-up GPU, torch 0.0, commit made-up" in found
    assert "12 passed and 1 failed" in found
    assert "not measured" not in found.lower()
    assert cells(part_of(found, "loops"), "wrn-0-0, 8") == ["3 (1.5 to 6)", *[""] * 6, "<= 5.2"]
    assert cells(part_of(found, "side by side"), "wrn-0-0, 8 | 4") == [
        "4",
        "5 (2.5 to 10)",
        "1.75 (0.875 to 3.5)",
        "gain >= 2",
    ]
    assert cells(part_of(found, "dumps"), "wrn-0-0, 8")[:4] == ["1,000", "4,321", "6 (3 to 12)", "5.5 (2.75 to 11)"]  # fmt: skip
    assert cells(part_of(found, "dumps"), "wrn-0-0, 8")[5:] == [
        "0.875 (0.438 to 1.75)",
        "0.925 (0.463 to 1.85)",
        "bare / dump after its start >= 0.95",
    ]
    assert cells(part_of(found, "kernels"), "loss, batch 8, 10 classes") == [
        "7 (3.5 to 14)",
        "mixed / kernel 1.12 (0.562 to 2.25)",
        "",
    ]
    assert (
        cells(part_of(found, "kernels"), "resampling, batch 8, 10 classes")[1]
        == "views a second 64 (32 to 128)"
    )


def test_the_last_row_of_a_part_and_variant_counts_and_no_rehearsal(tmp_path: Path) -> None:
    assert cells(part_of(page(tmp_path, ROWS), "steps"), "wrn-0-0, 8") == [
        "1 (0.5 to 2)",
        "",
        "",
        "2.5 (1.25 to 5); 0.4 (0.2 to 0.8)",
        "",
        "4 (2 to 8); 0.9 (0.45 to 1.8)",
        "<= 5.2",
    ]


def test_what_failed_is_named_unless_a_later_row_has_its_figures(tmp_path: Path) -> None:
    assert "Failed: loops wrn-0-0 8 teacher online.\n" in page(tmp_path, ROWS)
    mended = [*ROWS, {**LOOPS, "variant": "teacher online", "ms": figure(4.0)}]
    assert "Failed:" not in page(tmp_path, mended)


def test_what_is_not_measured_is_named(tmp_path: Path) -> None:
    everything = "Not measured yet by `python -m benchmarks.gpu`: steps, loops, dumps, side by side, kernels."
    assert everything in "\n".join(gpu_page.part(tmp_path))
    rows = [row for row in ROWS if row["part"] not in ("dumps", "kernels")]
    assert "`: dumps, kernels.\n" in page(tmp_path, rows)
    assert everything in page(tmp_path, [{**row, "rehearsal": True} for row in ROWS])


def test_the_rows_that_the_benchmarks_make_fill_the_tables(tmp_path: Path) -> None:
    """The names of figures and variants are those that are read here."""
    pair = [1.0, 2.0]
    contests: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (STEPS, steps._rows("static", {}, 5.2, dict.fromkeys(("static", *dict(gpu_page._STEPS)), pair))),
        (LOOPS, steps._rows("cache", {}, None, {name: pair for name, _ in gpu_page._LOOPS})),
        (DUMP, dumps._rows({1.0: 0.1, 2.0: 0.2}, 0.95, dict.fromkeys(("dump", "bare", "by hand"), pair))),
        (TOGETHER, together._rows(dict.fromkeys(("1", "2", "4"), pair))),
        (KERNEL, kernels._rows(2, {"views": 3}, dict.fromkeys(("kernel", "copy"), pair))),
    ]
    found = page(tmp_path, [{**about, **row} for about, rows in contests for row in rows])
    assert "not measured" not in found.lower()
    assert "" not in cells(part_of(found, "steps"), "wrn-0-0, 8")
    assert "" not in cells(part_of(found, "loops"), "wrn-0-0, 8")[:-1]
    assert "" not in cells(part_of(found, "dumps"), "wrn-0-0, 8")
    assert cells(part_of(found, "side by side"), "wrn-0-0, 8 | 4")[1] != ""
    assert "copy / kernel 1 " in cells(part_of(found, "kernels"), "loss, batch 8, 10 classes")[1]
