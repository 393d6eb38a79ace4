"""Output: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bancache.errors import StorageError
from bancache.system.progress import Stage

if TYPE_CHECKING:
    import torch

    from bancache.report.results import Record

# A terminal obeys control characters, and bidirectional ones lie; bytes of names that are not UTF-8 may be of them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\udc80-\udc9f]")
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_LINE_EVERY_SECONDS = 10.0
_WIDTH_OF_FILES = 1000


def clean(text: str) -> str:
    """Replace what a terminal would obey or break the line at: text may come from a file or be the name of one."""
    # Without a locale, the bytes of a UTF-8 name are surrogates one by one: they are judged and printed as a name.
    name = _NO_BYTES.sub("?", text).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return os.fsdecode(_CONTROLS.sub("?", name).encode("utf-8", "surrogateescape"))


def show_error(what: str, hint: str, *, title: str) -> None:
    """Print an error as one line on stderr, and its hint as another."""
    out = _stderr()
    for mark, text in ((f"[bold red]{title}[/] " if title else "", what), ("[bold]hint:[/] ", hint)):
        if text:
            out.print(f"{mark}{escape(clean(' '.join(text.splitlines())))}", soft_wrap=True)


@contextmanager
def _written() -> Iterator[None]:
    """Leave a reader that has gone in peace; raise ``StorageError`` if stdout is a file that cannot be written."""
    try:
        yield
    except OSError as error:
        # Python would write what is left as it ends, fail again, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            reason = os.strerror(error.errno or 0).lower()
            raise StorageError(
                f"the result cannot be printed: {reason}", hint="print it elsewhere"
            ) from error


def say(*cells: str) -> None:
    """Print a line of the result on stdout, without markup; several cells are separated by tabs."""
    with _written():
        print("\t".join(map(clean, cells)), flush=True)  # noqa: T201


def show_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    say(json.dumps(value, allow_nan=False))


def show_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    left: int = 1,
    title: str | None = None,
    **style: Any,
) -> None:
    """Print a table whose first ``left`` columns are aligned to the left and the others to the right."""
    table = Table(title=title and clean(title), title_justify="left", **style)
    for number, head in enumerate(titles):
        table.add_column(clean(head), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(str(cell)), getattr(cell, "style", "")) for cell in row))
    if sys.stdout.isatty():
        console().print(table)
        return
    with _written(), (out := console()).capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())  # a file needs no padding


def console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for every line in a file."""
    return Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES
    )


class _Aside(Console):
    """stderr, where nobody has to listen: a log on a full disk, or a reader that has gone, ends no work."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or fall silent if that fails."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Fall silent; rich would end the process."""
        self.quiet = True
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _stderr() -> Console:
    return _Aside(stderr=True, highlight=False, emoji=False)


@dataclass
class Said:
    """The notes and warnings of a command, each once, for its JSON."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Reporter:
    """Shows progress: bars on a terminal, plain lines elsewhere; when quiet, nothing but warnings."""

    def __init__(self, said: Said | None = None, *, quiet: bool = False) -> None:
        self._said, self._console, self._quiet = said or Said(), _stderr(), quiet
        self._drawing: progress.Progress | None = None

    def log(self, text: str) -> None:
        """Print a line on stderr."""
        if not self._quiet:
            self._print(escape(clean(text)))

    def note(self, text: str) -> None:
        """Print a note on stderr and keep it for the command's JSON, once."""
        if text not in self._said.notes:
            self._said.notes.append(text)
            self.log(f"note: {text}")

    def warn(self, text: str) -> None:
        """Print a warning on stderr and keep it for the command's JSON, once."""
        if text not in self._said.warnings:
            self._said.warnings.append(text)
            self._print(f"[bold yellow]warning:[/] {escape(clean(text))}")

    def _print(self, markup: str) -> None:
        (self._drawing.console if self._drawing else self._console).print(markup, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Stage]:
        """Show the progress of one piece of work until it ends."""
        if self._quiet or self._drawing is not None:
            yield _Stage(self.log, lambda amount: None)
        elif self._console.is_terminal:
            with self._drawn(title, total, unit, done) as stage:
                yield stage
        else:
            lines = _Lines(self.log, title, total, unit, done)
            yield lines
            lines.end()

    @contextmanager
    def _drawn(self, title: str, total: int, unit: str, done: int) -> Iterator[Stage]:
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn(unit),
        )
        rest = (_Rate(), progress.TimeRemainingColumn())
        with progress.Progress(*columns, *rest, console=self._console, transient=True) as self._drawing:
            task = self._drawing.add_task(escape(clean(title)), total=total, completed=done, unit=unit)
            try:
                yield _Stage(self.log, partial(self._drawing.advance, task))
            finally:
                self._drawing = None


class _Rate(progress.ProgressColumn):
    """Units per second."""

    def render(self, task: progress.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


@dataclass(frozen=True)
class _Stage:
    log: Callable[[str], None]
    advance: Callable[[int], None]


class _Lines:
    """Prints a line every few seconds, for logs."""

    def __init__(self, log: Callable[[str], None], title: str, total: int, unit: str, done: int) -> None:
        self.log, self._title, self._total, self._unit = log, title, total, unit
        self._first, self._done = done, done
        self._began = self._said = time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said >= _LINE_EVERY_SECONDS:
            self._said = now
            rate = (self._done - self._first) / (now - self._began)
            left = (self._total - self._done) / rate if rate else 0.0
            self.log(f"{self._shown()}, {rate:,.0f} {self._unit}/s, {left:,.0f} s left")

    def end(self) -> None:
        if self._done > self._first:
            seconds = max(time.monotonic() - self._began, 1e-9)
            rate = (self._done - self._first) / seconds
            self.log(f"{self._shown()} in {seconds:,.1f} s, {rate:,.0f} {self._unit}/s")

    def _shown(self) -> str:
        share = self._done / max(1, self._total)
        return f"{self._title}: {share:.0%}, {self._done:,} of {self._total:,} {self._unit}"


def bytes_text(count: float) -> str:
    """Return a size in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def record(out: Path, facts: Record, device: torch.device, key: str) -> None:
    """Add how ``out`` was made to the results.jsonl beside it, once for each value of ``key``."""
    from bancache.system.environment import environment

    record_from(out, facts, environment(device), key)


def record_from(out: Path, facts: Record, environment: dict[str, Any], key: str) -> None:
    """Do what ``record`` does, for a run on a machine that need not be this one."""
    from bancache.report.results import append_once

    about = {"command": command_line(), "environment": environment}
    append_once(out.parent / "results.jsonl", {**facts, **about}, key, "out")


def command_line() -> str:
    """Return the command as it was typed, for results.jsonl."""
    return shlex.join(["bancache", *sys.argv[1:]])
