"""Every benchmark runs, and says what it is asked."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bancache.bench import measure, work
from bancache.bench.timing import interleave, median_interval
from bancache.dumping.repair import verify_deeply
from benchmarks import (
    allocator,
    dataset,
    dump,
    encoding_students,
    encodings,
    large_cache,
    loss,
    online,
    performance,
    photographs,
    processes,
    rivals,
    scale,
    slabs,
    step,
    streaming,
    targets,
    view_order,
    views,
)
from benchmarks.harness import ratios, spread

# Twelve encodings of ours and, where they have fewer classes, six of others; nine roots at
# three temperatures against theory; twenty times; all at 100 and at 1000 classes.
LINES = {
    view_order: 12,
    encodings: (12 + 5) + (12 + 6) + 2 * 9 * 3 + 2 * 20,
    encoding_students: 2,
    dataset: 8,
}
RATIOS = {
    allocator: 3,
    views: 2,
    targets: 1,
    slabs: 3,
    loss: 2,
    step: 2,
    photographs: 4,
    streaming: 1,
    dump: 2,
    online: 2,
    scale: 2,
    rivals: 1 + 3 * (2 + 3),
}


run = subprocess.run


def run_here(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run ``python -m MODULE ...`` in this process: another one imports torch for seconds."""
    if command[0] != sys.executable:
        return run(command, **options)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", list(command[2:]))
        importlib.import_module(command[2]).main()
    return subprocess.CompletedProcess(command, 0, printed.getvalue())


@pytest.mark.parametrize("benchmark", [*LINES, *RATIOS], ids=lambda module: module.__name__.split(".")[1])
def test_a_quick_run_gives_lines_that_name_what_measured_them(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = benchmark.__name__.split(".")[1]
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json"])
    if benchmark in (allocator, scale):
        monkeypatch.setattr(subprocess, "run", run_here)
    benchmark.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert line["benchmark"] == name
        assert {"time", "command", "commit", "environment"} <= set(line)
    if benchmark in LINES:
        assert len(lines) == LINES[benchmark]
    else:
        found = [line for line in lines if "ratio" in line]
        assert len(found) >= RATIOS[benchmark]
        assert all(line["target"] for line in found)
    assert (benchmark.__doc__ or "").splitlines()[0].rstrip().endswith("?")


def test_a_cache_of_made_up_targets_is_finished_opened_and_read(tmp_path: Path) -> None:
    """What `benchmarks.scale --caches` does in six processes."""
    path = tmp_path / "large.zarr"
    large_cache.build(path, 300, 2)
    figures = {**large_cache.asked("go on", path), **large_cache.asked("open", path)}
    figures |= large_cache.asked("view", path)
    assert figures["files"] == 2 + 3
    assert figures["decoded"] == 300 * 1000
    assert len(figures["view"]) == len(figures["plain"]) == large_cache.ROUNDS
    assert verify_deeply(path) == []


def test_ratios_are_paired_by_round() -> None:
    found = ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])
    assert found == {"median": 3.0, "low": 2.0, "high": 4.0, "runs": 3, "median_low": 2.0, "median_high": 4.0}
    assert set(spread([5.0]).values()) == {5.0, 1}


def test_a_copy_reads_and_writes_as_many_bytes_as_the_work_beside_it() -> None:
    moved = []

    class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.copy_.default:
                moved.append(args[0].nbytes + args[1].nbytes)
            return func(*args, **(kwargs or {}))

    copy = work.copying(3000, 1000, torch.device("cpu"), count=2)
    with Copies():  # type: ignore[no-untyped-call]
        for _ in range(3):
            copy()
    assert moved == [4000] * 3


def test_a_comparison_has_the_medians_of_an_image_and_the_ratio_of_one_to_the_other() -> None:
    seconds = {"one": [0.2, 0.4, 0.9], "other": [0.1, 0.1, 0.2]}
    found = measure._compare("how", "one", "other", seconds, 1000)
    assert (found.one[0], found.other[0]) == ("one", "other")
    assert found.one[1] == pytest.approx(400)
    assert found.other[1] == pytest.approx(100)
    assert found.ratio["median"] == pytest.approx(4)


def test_rounds_go_forwards_and_backwards_and_the_first_does_not_count() -> None:
    said: list[str] = []
    ticks = itertools.count()
    variants = {name: functools.partial(said.append, name) for name in "abc"}
    found = interleave(variants, rounds=3, clock=lambda: float(next(ticks)))
    assert "".join(said) == "abccbaabccba"
    assert found == {name: [1.0] * 3 for name in "abc"}


@pytest.mark.parametrize("count", [6, 9, 25, 40])
def test_of_a_hundred_intervals_ninety_five_hold_the_median(count: int) -> None:
    rng = np.random.default_rng(count)
    held = [
        low <= np.log(2) <= high
        for low, high in map(median_interval, np.sort(rng.exponential(size=(4000, count))))
    ]
    assert 0.94 <= np.mean(held) < 0.99


@pytest.mark.parametrize(
    ("target", "median", "low", "high", "verdict"),
    [
        (">= 0.5", 0.6, 0.55, 0.65, "met"),
        (">= 0.5", 0.4, 0.35, 0.45, "missed"),
        (">= 0.5", 0.49, 0.45, 0.52, "not told apart"),
        ("<= 14", 10.0, 9.0, 11.0, "met"),
        ("<= 14", 15.0, 14.5, 16.0, "missed"),
        ("none", 15.0, 14.5, 16.0, "no target"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    target: str, median: float, low: float, high: float, verdict: str
) -> None:
    value = {"median": median, "median_low": low, "median_high": high, "low": 0.0, "high": 99.0}
    assert performance.verdict(target, value) == verdict


def test_several_processes_give_the_spread_of_their_medians(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs of the benchmark that is done soonest."""
    monkeypatch.setattr(subprocess, "run", run_here)
    monkeypatch.setattr(sys, "argv", ["processes", "loss", "--quick", "--json", "--processes", "2"])
    processes.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["command"] for line in lines} == {
        "python -m benchmarks.processes loss --quick --json --processes 2"
    }
    figures = [
        value for line in lines for value in line.values() if isinstance(value, dict) and "median" in value
    ]
    assert len(figures) == 6
    assert all((figure["runs"], figure["rounds"]) == (2, 2) for figure in figures)
    assert all(figure["median_low"] < figure["median"] < figure["median_high"] for figure in figures)


def test_the_page_of_figures_is_that_of_the_result_lines() -> None:
    """`python -m benchmarks.performance` writes it."""
    assert performance.PAGE.read_text() == performance.page()
