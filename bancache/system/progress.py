"""The protocol by which the library reports progress, notes and warnings; the default is silent."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stage(Protocol):
    """One piece of work in progress."""

    def advance(self, amount: int) -> None:
        """Report that ``amount`` more units are done."""

    def log(self, text: str) -> None:
        """Print a line, such as an epoch's accuracy."""


class Progress(Protocol):
    """Receives progress; the command line passes one that draws a bar."""

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """Open a stage of ``total`` units, of which an earlier run finished ``done``."""

    def log(self, text: str) -> None:
        """Print a line that says how far the work is, and belongs to no stage."""

    def note(self, text: str) -> None:
        """Say what was decided for the user, such as what was left out; also part of a command's JSON."""

    def warn(self, text: str) -> None:
        """Say what is probably wrong, though the work goes on; also part of a command's JSON."""


class Silent:
    """Reports nothing, as progress and as its own stage."""

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """Return a context that yields this object."""
        return nullcontext(self)

    def advance(self, amount: int) -> None:
        """Ignore the amount."""

    def log(self, text: str) -> None:
        """Ignore the text."""

    def note(self, text: str) -> None:
        """Ignore the text."""

    def warn(self, text: str) -> None:
        """Ignore the text."""


class Kept(Silent):
    """Keeps notes and warnings, for another process to say."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        """Keep the text."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep the text."""
        self.warnings.append(text)
