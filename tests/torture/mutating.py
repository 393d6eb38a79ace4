"""Bad input: files and options of every kind, changed at random, never give a traceback and never take much memory.

Each module ``mutate_*.py`` beside this one has ``MUTATORS``: functions by name that take a folder in memory and a
``Chance``, prepare an input there, change it, and return what to do with it: a function, or the arguments of a command.
An error of bancache is a right answer, and so is success.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contracts.calling import call
from contracts.memory import folder_in_memory
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torture.rows import Ground, Row

from bancache.errors import BancacheError

Job = Callable[[], object] | list[str | Path]
_GROWTH_KIB = 1 << 20  # of the peak of this process: 1 GiB
_ODD: list[object] = [
    *(None, True, False, 0, -1, 1 << 31, 1 << 63, 10**30, 10**400, 0.5, -1e308, 1e-320, float("nan"), float("inf")),
    *("", "..", "/", "\0", "\x1b]52;c;aGk=\x07", "a\nb", "\ud800", "9" * 400, "x" * 5000, "os:abort", "s3://a/b"),
    *([], {}, [[]], [None], {"": 0}, [0] * 1000, {"name": "root4"}),
]  # fmt: skip


class Chance:
    """Where and how an input is changed, decided by one number, so that a failure can be repeated."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)

    def one_of(self, values: Any) -> Any:
        """Return one of some values."""
        return self._random.choice(list(values))

    def bytes(self, content: bytes) -> bytes:
        """Return content cut, with bits flipped, or with a piece doubled, left out or made up."""
        pick, changed = self._random, bytearray(content)
        for _ in range(pick.choice((1, 1, 2, 8))):
            start = pick.randrange(len(changed) + 1)
            stop = min(len(changed), start + pick.choice((1, 2, 8, 100)))
            piece = bytes(changed[start:stop])
            new = (b"", piece * 2, bytes(len(piece)), pick.randbytes(len(piece)), b'"}]{[,:9')
            changed[start:stop] = pick.choice(new)
            if pick.random() < 0.1:
                del changed[start:]
        return bytes(changed)

    def value(self, value: Any) -> Any:
        """Return a JSON value in which one or two values are others, of another type, or gone."""
        for _ in range(self._random.choice((1, 1, 2))):
            value = self._replaced(value)
        return value

    def _replaced(self, value: Any) -> Any:
        inner = isinstance(value, dict | list) and value and self._random.random() < 0.9
        if not inner:
            return self.one_of(_ODD)
        copy = dict(value) if isinstance(value, dict) else list(value)
        key = self.one_of(copy) if isinstance(copy, dict) else self._random.randrange(len(copy))
        if self._random.random() < 0.1:
            del copy[key]
        elif isinstance(copy, dict) and self._random.random() < 0.05:
            copy[str(self.one_of(_ODD))[:50]] = copy.pop(key)
        else:
            copy[key] = self._replaced(copy[key])
        return copy


Mutator = Callable[[Path, Chance], Job]


def mutators() -> dict[str, Mutator]:
    """Return the mutators of all modules beside this one."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("mutate_*.py"))
    modules = (importlib.import_module(f"torture.{name}") for name in names)
    return {name: mutator for module in modules for name, mutator in module.MUTATORS.items()}


def problem_of(mutator: Mutator, number: int) -> str | None:
    """Make one bad input, use it, and return what went wrong: a traceback, or too much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with folder_in_memory() as folder:
        try:
            job = mutator(folder, Chance(number))
            if callable(job):
                with contextlib.suppress(BancacheError):
                    job()
            else:
                outcome = call(*job)
                if set(outcome.out + outcome.err) & set("\x1b\x07\x9b"):
                    return f"a control character reached the terminal: {outcome!r}"
        except Exception:  # noqa: BLE001 (whatever it is, it is what is looked for)
            return traceback.format_exc()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"it took {grown >> 10:,} MiB" if grown > _GROWTH_KIB else None


def bad_input(ground: Ground) -> Iterator[bool]:
    """Let hypothesis choose for two minutes; every mutator gets its share, and each failure is printed."""
    found = mutators()
    for name, mutator in found.items():
        end, batch = time.monotonic() + 4 * ground.seconds / len(found), 0
        while batch == 0 or (time.monotonic() < end and not ground.quick):
            yield from _outcomes(name, mutator, batch)
            batch += 1


def _outcomes(name: str, mutator: Mutator, batch: int) -> list[bool]:
    """Run a few inputs; hypothesis has no limit of time, so it is asked again and again."""
    outcomes = []

    @seed(batch)
    @settings(
        max_examples=5,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def run(number: int) -> None:
        problem = problem_of(mutator, number)
        if problem:
            sys.stdout.write(f"{name}, {number}: {problem}\n")
        outcomes.append(problem is None)

    run()
    return outcomes


ROWS = (Row(28, "files and options changed at random", bad_input),)
