"""Stopping cleanly: the first signal sets a flag that the work checks between its steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bancache.errors import StoppedError

_LOOK_EVERY_SECONDS = 0.1


class Interrupt:
    """A flag that says whether a stop was requested."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        """Raise ``StoppedError`` if a stop was requested; the caller has saved its work."""
        if self.signal_number is not None:
            raise StoppedError(f"stopped: {progress}", signal_number=self.signal_number, hint=hint)

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self.signal_number is not None

    def wait(self, seconds: float) -> None:
        """Sleep, at most until a stop is requested."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY_SECONDS))


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second ends the process at once.

    Ending at once runs no cleanup, so that no library prints a traceback. Files on disk are safe at any instant.
    """
    interrupt = Interrupt()

    def ask(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            os._exit(128 + number)
        interrupt.signal_number = number

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
