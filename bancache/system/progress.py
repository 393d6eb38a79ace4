"""The protocol by which the library reports progress; the default is silent."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stage(Protocol):
    """One piece of work in progress."""

    def advance(self, amount: int) -> None:
        """Report that ``amount`` more units are done."""

    def note(self, text: str) -> None:
        """Print a line, such as an epoch's accuracy."""


class Progress(Protocol):
    """Receives progress; the command line passes one that draws a bar."""

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """Open a stage of ``total`` units, of which an earlier run finished ``done``."""

    def note(self, text: str) -> None:
        """Print a line that belongs to no stage."""


class Silent:
    """Reports nothing, as progress and as its own stage."""

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """Return a context that yields this object."""
        return nullcontext(self)

    def advance(self, amount: int) -> None:
        """Ignore the amount."""

    def note(self, text: str) -> None:
        """Ignore the text."""
