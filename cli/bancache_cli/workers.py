"""``bancache dump --workers N``: the same command in N processes that fill one cache together."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, RECORDS, read_manifest
from bancache.errors import BancacheError, StoppedError, UsageError
from bancache.system.files import make_directory
from bancache.system.locks import exclusive, holder
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt, interruptible
from bancache.system.subprocesses import Ended, Team, threads_each
from bancache_cli import console

if TYPE_CHECKING:
    from bancache.dumping import DumpResult
    from bancache.system.progress import Stage


@dataclass(frozen=True)
class State:
    """How far a cache is.

    Attributes:
        layout: Its shards.
        done: Which of them are recorded.
    """

    layout: Layout
    done: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether there is nothing left."""
        return len(self.done) == self.layout.count

    @property
    def entries(self) -> int:
        """How many views are recorded."""
        shards = map(self.layout.shard, self.done)
        return sum(shard.stop - shard.start for shard in shards)


def look_at(path: Path) -> State | None:
    """Return how far a cache is, without reading a shard; None before it was begun."""
    if not (path / MANIFEST).is_file():
        return None
    stored = read_manifest(path)
    layout = Layout(Manifest.from_dict(stored["promise"]))
    if stored["complete"]:
        return State(layout, frozenset(range(layout.count)))
    names = [file.stem for file in (path / RECORDS).glob("*.json")]
    # A cache is complete by its manifest alone: until then, one shard too few.
    return State(layout, frozenset([int(name) for name in names if name.isdecimal()][: layout.count - 1]))


@dataclass(frozen=True)
class Workers:
    """Which processes are asked for.

    Attributes:
        count: How many.
        argv: The command, as after ``bancache``.
        place: Where they stand among those of other machines, which run as many.
        join: Whether they help somebody; otherwise the cache is theirs.
        overwrite: Whether they begin anew.
        quiet: Whether nothing is said meanwhile.
    """

    count: int
    argv: list[str]
    place: Rank
    join: bool
    overwrite: bool
    quiet: bool

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--workers {self.count} would do nothing", hint="start at least one")


def dump_with_workers(asked: Workers, out: Path) -> DumpResult:
    """Run a dump in several processes, and return what they made.

    Raises:
        BusyError: Another process writes the cache, and these do not join.
        StoppedError: A signal was passed on to all of them, and they have stopped.
        BancacheError: Shards are left over; or all of them gave the same error, with its exit code.
    """
    reporter, started = console.Reporter(quiet=asked.quiet), time.monotonic()
    before = None if asked.overwrite else look_at(out)
    with Team() as team, interruptible(team.kill) as interrupt, ExitStack() as stack:
        if not asked.join and not asked.overwrite:
            stack.enter_context(_held(out))
        _start(team, _commands(asked), out, interrupt)
        ended = team.wait(interrupt, stack.enter_context(_watched(out, before, reporter)))
    after = look_at(out)
    if after is None or not after.complete or all(end.code for end in ended):
        raise _left_over(after, ended, interrupt, reporter)
    for number, end in enumerate(ended):
        if end.code:
            reporter.note(f"worker {number} ended early: {_last_line(end)}; the others did its part")
    return _result(out, after, before, time.monotonic() - started)


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Be the one who dumps: others may only join."""
    from bancache.cache.directory import require_ours

    require_ours(out)
    make_directory(out)
    try:
        hint = "help it with --join, wait for it, or choose another --out"
        with exclusive(out, sharing=True, hint=hint) as share:
            share()
            yield
    finally:
        with suppress(OSError):
            out.rmdir()  # where no worker could begin, nothing is left


_OWN = ("--workers", "--rank", "--world-size")  # with a value
_OWN_FLAGS = ("--json", "--join", "--overwrite", "--quiet", "-q")


def _commands(asked: Workers) -> list[list[str]]:
    """Return each worker's command: the same, with its place among all; only the first one may overwrite."""
    words, kept = iter(asked.argv), []
    for word in words:
        if word in _OWN:
            next(words, None)
        elif word not in _OWN_FLAGS and word.partition("=")[0] not in _OWN:
            kept.append(word)
    start = [sys.executable, "-m", "bancache_cli", *kept, "--quiet"]
    size = asked.place.count * asked.count
    commands = []
    for number in range(asked.count):
        joining = [
            "--join",
            "--rank",
            str(asked.place.rank * asked.count + number),
            "--world-size",
            str(size),
        ]
        alone = asked.overwrite and number == 0
        commands.append([*start, *(["--overwrite"] if alone else joining), "--worker", str(number)])
    return commands


def _start(team: Team, commands: list[list[str]], out: Path, interrupt: Interrupt) -> None:
    """Start all; where the first one overwrites, the others once it has the cache for itself."""
    environment = {"OMP_NUM_THREADS": threads_each(len(commands)), **os.environ}
    first, *others = commands
    pid = team.start(first, environment)
    while "--join" not in first and team.running and not interrupt.requested:
        if (found := holder(out)).get("pid") == pid and found.get("shared"):
            break
        interrupt.wait(0.1)
    for command in others if team.running else []:
        team.start(command, environment)


class _Watch:
    """Shows as one line of progress how much is recorded, once there is something to count."""

    def __init__(self, out: Path, before: State | None, reporter: console.Reporter, stack: ExitStack) -> None:
        self._out, self._reporter, self._stack = out, reporter, stack
        self._shown, self._stage = before.entries if before else 0, None

    _stage: Stage | None

    def __call__(self) -> None:
        with suppress(BancacheError):  # whatever it is, a worker says it
            state = look_at(self._out)
            if state is None:
                return
            if self._stage is None:
                whole = state.layout.manifest.samples * state.layout.manifest.num_views
                stage = self._reporter.stage("dump", total=whole, unit="images", done=self._shown)
                self._stage = self._stack.enter_context(stage)
            self._stage.advance(max(0, state.entries - self._shown))
            self._shown = max(self._shown, state.entries)


@contextmanager
def _watched(out: Path, before: State | None, reporter: console.Reporter) -> Iterator[_Watch]:
    with ExitStack() as stack:
        yield _Watch(out, before, reporter, stack)


def _left_over(
    state: State | None, ended: list[Ended], interrupt: Interrupt, reporter: console.Reporter
) -> BancacheError:
    """Return the error that says what is left over, or why nothing could be done."""
    how_far = f"{len(state.done)} of {state.layout.count} shards are done" if state else "nothing was begun"
    if interrupt.signal_number is not None:
        hint = "run the same command to go on"
        what = f"stopped: {how_far.removesuffix(' are done')}"
        return StoppedError(what, signal_number=interrupt.signal_number, hint=hint)
    ((said, code), times), *_ = Counter((_error(end), end.code) for end in ended).most_common()
    if times == len(ended) and said[0] and code > 0:
        same = BancacheError(said[0], hint=said[1])
        same.exit_code = code
        return same
    for number, end in enumerate(ended):
        if end.code:
            reporter.note(f"worker {number}: {_last_line(end)}")
    return BancacheError(how_far, hint="run the same command to finish")


def _error(end: Ended) -> tuple[str, str]:
    """Return the error and the hint that a worker gave."""
    lines = [line.partition(": ") for line in end.said.splitlines()]
    found = {title: text for title, _, text in lines if title in ("error", "hint")}
    return found.get("error", ""), found.get("hint", "")


def _last_line(end: Ended) -> str:
    if end.code < 0:
        return f"killed by signal {-end.code}"
    return _error(end)[0] or (end.said.strip().splitlines() or [f"exit code {end.code}"])[-1]


def _result(out: Path, after: State, before: State | None, seconds: float) -> DumpResult:
    from bancache.cache.reader import open_cache
    from bancache.dumping import DumpResult

    entries = after.entries - (before.entries if before else 0)
    return DumpResult(open_cache(out), seconds if entries else 0.0, entries)
