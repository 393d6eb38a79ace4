"""A short part of `make torture`: the same bad inputs every time."""

from __future__ import annotations

import pytest
from torture.mutating import mutators, problem_of

FOUND = mutators()


@pytest.mark.parametrize("name", FOUND)
def test_bad_input_gives_an_error_of_bancache_or_none(name: str) -> None:
    problems = {number: problem_of(FOUND[name], number) for number in range(4)}
    assert {number: problem for number, problem in problems.items() if problem} == {}
