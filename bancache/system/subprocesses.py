"""Several processes that do one piece of work: started, watched, told of signals; none's end is another's."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from bancache.system.signals import Interrupt

_LOOK_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class Ended:
    """How one process ended.

    Attributes:
        code: Its exit code; the number of the signal that killed it, negative.
        said: What it wrote to stderr.
    """

    code: int
    said: str


class Team:
    """Processes that run until they end by themselves or are told to; leaving kills those that have not."""

    def __init__(self) -> None:
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nobody behind."""
        self.kill()
        for process, said in self._processes:
            process.wait()
            said.close()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a process and return its number in the system.

        It gets a session of its own: a terminal's Ctrl-C reaches it by ``signal`` alone, and so once.
        """
        said = tempfile.TemporaryFile()  # noqa: SIM115 (closed on leaving)
        process = subprocess.Popen(  # noqa: S603 (this program again)
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        self._processes.append((process, said))
        return process.pid

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(process.poll() is None for process, _ in self._processes)

    def signal(self, number: int) -> None:
        """Send a signal to all that have not ended."""
        for process, _ in self._processes:
            process.send_signal(number)

    def kill(self) -> None:
        """End all at once."""
        self.signal(signal.SIGKILL)

    def wait(self, interrupt: Interrupt, look: Callable[[], object]) -> list[Ended]:
        """Wait for all to end, looking around now and then; pass on the signal that asks this process to stop."""
        told = False
        while self.running:
            if interrupt.signal_number is not None and not told:
                self.signal(interrupt.signal_number)
                told = True
            look()
            time.sleep(_LOOK_EVERY_SECONDS)
        look()
        return [Ended(process.returncode, _all_of(said)) for process, said in self._processes]


def threads_each(processes: int) -> str:
    """Return how many threads each of several processes gets on this machine, for OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return str(max(1, cores // processes))


def _all_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
