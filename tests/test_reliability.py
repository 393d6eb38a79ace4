"""docs/reliability.md names tests that exist, all faults, and the trials of the result lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bancache import errors
from benchmarks.reliability import table

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ((?:`tests/|none)[^|]*) \|$", TEXT, re.MULTILINE)
NOT_COVERED: set[int] = set()


def test_every_fault_has_a_row() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 31))


@pytest.mark.parametrize(("number", "tests"), [(int(row[0]), row[3]) for row in ROWS])
def test_the_tests_of_a_fault_exist(number: int, tests: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert len(named) == tests.count("`") // 2
    assert named or number in NOT_COVERED
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_what_does_not_hold_is_said() -> None:
    assert {int(number) for number, _, happens, _ in ROWS if "**not covered**" in happens} == NOT_COVERED


def test_the_trials_are_those_of_the_result_lines_and_none_failed() -> None:
    """`python -m benchmarks.reliability` puts them there."""
    (shown,) = re.findall(r"<!-- torture -->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL)
    assert shown == table()
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (\d+) \| (\d+) \|$", shown, re.MULTILINE)
    assert len(rows) > 10
    assert all(int(trials) > 0 and failures == "0" for _, trials, failures in rows)


def test_the_exit_codes_are_those_of_the_errors() -> None:
    told = set(
        map(int, re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \| [^|]+ \|$", TEXT, re.MULTILINE))))
    )
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.BancacheError)
    ]
    assert told == {0, 130, 143} | {c.exit_code for c in classes}
