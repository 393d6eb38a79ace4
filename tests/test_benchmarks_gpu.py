"""The GPU benchmarks run where there is no GPU, say what they leave out, and claim nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import dumping, kernels, student


def test_a_rehearsal_leaves_lines_that_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick", "--device", "cpu", "--out", str(tmp_path)])
    for benchmark in (kernels, student, dumping):
        benchmark.main()
    said = capsys.readouterr().out
    for name in ("kernels", "student", "dumping"):
        assert f"{name}: no CUDA device" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dumping.jsonl", "student.jsonl"]
    lines = [
        json.loads(line) for path in sorted(tmp_path.iterdir()) for line in path.read_text().splitlines()
    ]
    assert [(line["goal"], line.get("residence")) for line in lines] == [
        ("G4", None),
        ("G1", "cpu"),
        ("G2", "disk"),
    ]
    for line in lines:
        assert line["rehearsal"] is True
        assert {"time", "command", "commit", "environment", "target"} <= set(line)
        assert line["environment"]["device"] == "cpu"
