"""A team of processes: none's end is another's, signals reach each once, nobody is left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bancache.system.signals import Interrupt, interruptible
from bancache.system.subprocesses import Ended, Team, threads_each


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_ends_in_its_own_way() -> None:
    looks = []
    with Team() as team:
        team.start(python("import sys; sys.stderr.write('error: a\\n'); sys.exit(6)"), os.environ)
        team.start(python("import os; os.kill(os.getpid(), 9)"), os.environ)
        team.start(python("import time; time.sleep(0.5); print('unheard')"), os.environ)
        ended = team.wait(Interrupt(), lambda: looks.append(team.running))
    assert ended == [Ended(6, "error: a\n"), Ended(-9, ""), Ended(0, "")]
    assert looks[-1] == 0


def test_a_wish_to_stop_is_passed_on_once(tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
times = []
signal.signal(signal.SIGTERM, lambda *_: times.append(1))
pathlib.Path(sys.argv[1]).touch()
while not times:
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(10 + len(times))
"""
    interrupt = Interrupt()

    def look() -> None:
        if len(list(tmp_path.iterdir())) == 2:
            interrupt.signal_number = signal.SIGTERM

    with Team() as team:
        for name in "ab":
            team.start([*python(code), str(tmp_path / name)], os.environ)
        assert [end.code for end in team.wait(interrupt, look)] == [11, 11]


def test_who_leaves_leaves_nobody_behind() -> None:
    with Team() as team:
        pid = team.start(python("import time; time.sleep(60)"), os.environ)
        assert is_alive(pid)
    assert not is_alive(pid)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(10)), raising=False)
    assert [threads_each(count) for count in (1, 3, 10, 40)] == ["10", "3", "1", "1"]


def test_the_first_signal_is_a_wish_the_second_an_end() -> None:
    """In a child, whose end is the point: no cleaning up, no word, the code of the signal."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with interruptible(lambda: os.write(write, b"first")) as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.requested
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    assert os.read(read, 100) == b"first"
    os.close(read)


def test_waiting_ends_with_a_wish_to_stop() -> None:
    interrupt = Interrupt()
    began = time.monotonic()
    interrupt.wait(0.05)
    assert time.monotonic() - began >= 0.05
    interrupt.signal_number = 2
    interrupt.wait(3600)
