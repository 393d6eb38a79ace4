"""How the library reports progress: a protocol, and a default that stays silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int) -> None:
        """Report that ``amount`` more units are done."""

    def note(self, text: str) -> None:
        """Say something worth reading once, such as an epoch's accuracy."""


class Progress(Protocol):
    """Receives what the library is doing; the command line supplies one that draws."""

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """Open a stage of ``total`` units of which ``done`` were done by an earlier run."""

    def note(self, text: str) -> None:
        """Say something that belongs to no stage."""


class _SilentStage:
    def advance(self, amount: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Silent:
    """Reports nothing."""

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Stage]:
        """Open a stage that ignores what it is told."""
        yield _SilentStage()

    def note(self, text: str) -> None:
        """Ignore the text."""
