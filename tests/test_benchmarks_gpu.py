"""The GPU benchmarks run where there is no GPU, say what they leave out, keep to their time and claim nothing."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import correctness, dumps, steps
from benchmarks.gpu.session import MOST_ROUNDS, ROUNDS, OutOfTime, Session, Task
from benchmarks.gpu.timing import Contest


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


def test_a_rehearsal_takes_every_part_and_leaves_lines_that_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(session: Session, folder: Path) -> dict[str, tuple[subprocess.Popen[bytes], Path]]:
        log = folder / "compile.txt"
        log.write_text('a warning\n{"cold_seconds": 3.5}\n')
        return {"net": (subprocess.Popen(["true"]), log)}

    monkeypatch.setattr(steps, "compile_ahead", at_once)
    monkeypatch.setattr(correctness, "run", lambda *rest: {"passed": 1, "failed": []})
    photographs = ("torchvision:shufflenet_v2_x0_5", 10, 8, 40, 32, 1, 4, 0.95)
    monkeypatch.setattr(dumps, "SMALL", (*dumps.SMALL, photographs))
    gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path)])
    found = lines(tmp_path)
    assert [line for line in found if "failed" in line and line["part"] != "tests"] == []
    assert [line["part"] for line in found if line["part"] in ("tests", "compiling", "end")] == [
        "tests",
        "compiling",
        "end",
    ]
    assert [line["cold_seconds"] for line in found if line["part"] == "compiling"] == [3.5]
    assert {line["variant"] for line in found if line["part"] == "steps"} == {
        "static",
        "cpu",
        "disk",
        "compiled",
        "static, compiled",
    }
    assert {line["variant"] for line in found if "ms" in line and line["part"] == "loops"} == {
        "cache",
        "cache, compiled",
        "static, compiled",
        "teacher online",
        "teacher online, compiled",
        "float16 resident",
        "float16 resident, reduce-overhead",
        "labels alone",
    }
    assert [line["entries"] for line in found if line["part"] == "dumps"] == [120, 8]
    assert [line["kernel"] for line in found if line["part"] == "kernels"] == [
        "views",
        "loss",
        "encode and measure",
        "records",
    ]
    for line in found:
        assert line["rehearsal"] is True
        assert {"time", "command", "commit", "environment"} <= set(line)
        assert line["environment"]["device"] == "cpu"


def test_on_a_gpu_what_has_an_aim_fits_into_one_short_call_and_comes_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[Task] = []
    monkeypatch.setattr(Session, "cuda", True)
    monkeypatch.setattr(Session, "measure", lambda session, task: tasks.append(task))
    gpu.measure(session_of(tmp_path, 1))
    names = [
        f"{task.about['part']} {task.about.get('net', task.about.get('kernel'))} {task.about.get('classes', '')}"
        for task in tasks
    ]
    aims = {
        *(f"dumps {net} {classes}" for net, classes in (("wrn-28-2", 100), ("wrn-28-10", 100))),
        "dumps torchvision:resnet50 1000",
        *(f"steps {net} " for net in ("wrn-16-4", "wrn-28-10", "wrn-28-2")),
        *("kernels views ", "kernels loss 100", "kernels loss 1000", "kernels resampling "),
        "side by side wrn-28-2 ",
    }
    first = max(place for place, name in enumerate(names) if name in aims) + 1
    assert set(names[:first]) == aims
    assert sum(task.seconds for task in tasks[:first]) <= (1 - gpu.AHEAD) * 3.7 * 60


def session_of(tmp_path: Path, seconds: float) -> Session:
    return Session(torch.device("cpu"), False, tmp_path, time.monotonic() + seconds)


def test_what_does_not_fit_is_left_out_and_a_line_says_so(tmp_path: Path) -> None:
    session = session_of(tmp_path, 5)
    session.measure(Task({"part": "long"}, 60, lambda: [{"never": 1}]))
    session.measure(Task({"part": "short"}, 1, lambda: [{"found": 1}]))
    first, second = lines(tmp_path)
    assert first["part"] == "long"
    assert "skipped" in first
    assert second["found"] == 1


def test_a_fault_in_one_benchmark_loses_no_other(tmp_path: Path) -> None:
    def fails() -> list[dict[str, Any]]:
        raise RuntimeError("no such kernel")

    session = session_of(tmp_path, 5)
    session.measure(Task({"part": "broken"}, 1, fails))
    session.measure(Task({"part": "sound"}, 1, lambda: [{"found": 1}]))
    first, second = lines(tmp_path)
    assert first["failed"] == "RuntimeError: no such kernel"
    assert second["found"] == 1


def test_figures_that_cannot_be_compared_lose_no_other_and_take_no_more_time(tmp_path: Path) -> None:
    """Such as those of a kernel that could not be captured."""

    def rows(taken: dict[str, list[float]]) -> list[dict[str, Any]]:
        return [{"ratio": taken["kernel"]}]

    session = session_of(tmp_path, 5)
    session.measure(Task({"part": "broken"}, 1, lambda: Contest({"copy": lambda: 1.0}, rows)))
    session.measure(Task({"part": "empty"}, 1, lambda: Contest({}, rows)))
    session.measure(Task({"part": "sound"}, 1, lambda: [{"found": 1}]))
    session.use_what_is_left()
    assert [line["part"] for line in lines(tmp_path)] == ["broken", "sound"]
    assert "KeyError" in lines(tmp_path)[0]["failed"]
    assert session.left > 3


def test_what_fails_while_it_is_timed_has_no_part_in_later_turns(tmp_path: Path) -> None:
    def fails() -> float:
        raise ValueError("out of memory")

    session = session_of(tmp_path, 5)
    contest = Contest({"dump": lambda: 2.0, "by hand": fails}, lambda taken: [dict(taken)])
    session.measure(Task({"part": "dumps"}, 1, lambda: contest))
    first, second = lines(tmp_path)
    assert "by hand: ValueError" in first["failed"]
    assert (second["dump"], "by hand" in second) == ([2.0] * (ROUNDS - 1), False)


def test_time_that_is_left_goes_into_more_rounds(tmp_path: Path) -> None:
    session = session_of(tmp_path, 1000)
    contest = Contest({"fast": lambda: 1.0}, lambda taken: [{"rounds": len(taken["fast"])}])
    session.measure(Task({"part": "fast"}, 100, lambda: contest))
    session.use_what_is_left()
    assert [line["rounds"] for line in lines(tmp_path)] == list(range(ROUNDS, MOST_ROUNDS + 1))


def test_the_budget_ends_whatever_runs(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime), session_of(tmp_path, 0.1).ends_in_time():
        time.sleep(300)


def test_lines_of_tests_are_read_even_if_they_were_stopped() -> None:
    printed = "tests/a.py::one PASSED   [ 50%]\ntests/a.py::two[a b] FAILED [ 60%]\ntests/a.py::three "
    assert correctness.summary(printed) == {
        "passed": 1,
        "failed": ["tests/a.py::two[a b]"],
        "skipped_tests": 0,
    }
