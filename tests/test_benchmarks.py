"""Every benchmark runs, and says what it is asked."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import profiles, view_order, views
from benchmarks.harness import ratios, spread


@pytest.mark.parametrize(
    ("name", "main", "rows"),
    [("view_order", view_order.main, 12), ("views", views.main, 7), ("profiles", profiles.main, 4)],
)
def test_a_quick_run_gives_lines_that_name_what_measured_them(
    name: str, main: object, rows: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json"])
    assert callable(main)
    main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == rows
    for line in lines:
        assert line["benchmark"] == name
        assert {"time", "command", "commit", "environment"} <= set(line)


def test_ratios_are_paired_by_round() -> None:
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "runs": 3}
    assert spread([5.0]) == {"median": 5.0, "low": 5.0, "high": 5.0, "runs": 1}
