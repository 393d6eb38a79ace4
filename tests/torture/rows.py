"""The fault campaign: each row injects one kind of fault many times and counts the wrong outcomes.

Run by ``python -m benchmarks.torture``. A row that needs a missing right or program is skipped with a reason.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.killing import Forker, tree


class NotHere(Exception):
    """A row needs a right or a program that is missing."""


@dataclass(frozen=True)
class Ground:
    """The files and the server that rows use.

    Attributes:
        folder: A folder in memory, since small files are flushed often.
        forker: Runs commands that may be killed.
        teacher: A checkpoint.
        cache: Its cache of six views, undisturbed.
        student: A checkpoint trained from it, undisturbed.
        quick: Whether to run only one or two trials of each row.
        seconds: Time limit of a row.
    """

    folder: Path
    forker: Forker
    teacher: Path
    cache: Path
    student: Path
    quick: bool
    seconds: float

    def numbers(self, count: int) -> Iterator[int]:
        """Yield 0, 1, ... up to ``count``, at most until the time limit."""
        end = time.monotonic() + self.seconds
        for number in range(min(count, 2) if self.quick else count):
            if number and time.monotonic() > end:
                return
            yield number

    def place(self, name: str) -> Path:
        """Return a fresh folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def dump_args(self, out: Path, views: int = 6) -> list[str]:
        """Return the command that makes ``cache``."""
        given = ["--num-views", str(views), "--batch-size", "16", "-q"]
        return ["dump", "--teacher", str(self.teacher), "--out", str(out), *given]

    def train_args(self, out: Path, cache: Path | None = None) -> list[str]:
        """Return the command that makes ``student``, from a copy of the cache if one is given."""
        given = ["--epochs", "3", "--save-every", "0", "-q"]
        return ["train-student", "--cache", str(cache or self.cache), "--out", str(out), *given]

    def is_whole(self, path: Path) -> bool:
        """Whether a cache is byte-identical to the undisturbed one."""
        return tree(path) == tree(self.cache)


@dataclass(frozen=True)
class Row:
    """One kind of fault.

    Attributes:
        fault: Its number in docs/reliability.md.
        what: Its description.
        run: Yields for each trial whether the outcome was right.
    """

    fault: int
    what: str
    run: Callable[[Ground], Iterator[bool]]
