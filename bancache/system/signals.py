"""When to stop: a signal becomes a wish that work asks about between its steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bancache.errors import StoppedError

_LOOK_EVERY_SECONDS = 0.1


class Interrupt:
    """A wish to stop that work asks about between its steps."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        """Leave when a stop was asked for; the caller has kept what is done.

        Raises:
            StoppedError: With the exit code of the signal, 130 or 143.
        """
        if self.signal_number is not None:
            raise StoppedError(f"stopped: {progress}", signal_number=self.signal_number, hint=hint)

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal_number is not None

    def wait(self, seconds: float) -> None:
        """Let time pass, at most until a stop is asked for."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY_SECONDS))


@contextmanager
def interruptible(first: Callable[[], object] = lambda: None) -> Iterator[Interrupt]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second ends the process where it stands.

    At once means without a word: nothing is unwound, so no library complains about being cut off. What is on
    disk is safe at any instant.

    Args:
        first: Is called before the process ends by a second signal.
    """
    interrupt = Interrupt()

    def ask(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            first()
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
