"""The first signal asks to stop, the second one ends the process."""

from __future__ import annotations

import os
import signal
import time

from bancache.system.signals import Interrupt, interruptible


def test_the_first_signal_asks_to_stop_and_the_second_ends_the_process() -> None:
    """In a child process, which ends at once with the code of the second signal."""
    pid = os.fork()
    if pid == 0:
        with interruptible() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.requested
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143


def test_waiting_ends_when_a_stop_is_requested() -> None:
    interrupt = Interrupt()
    began = time.monotonic()
    interrupt.wait(0.05)
    assert time.monotonic() - began >= 0.05
    interrupt.signal_number = 2
    interrupt.wait(3600)
