"""A process that has imported everything and forks a child for each command, so that a kill costs little.

The children are real processes that die by a real SIGKILL: at a random instant, or just before their n-th
call that makes something durable (fsync, rename, unlink).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PATIENCE_SECONDS = 120.0
_SERVER = Path(__file__).with_name("forking.py")


class Forker:
    """Runs commands in forked children; starting it does not wait until everything is imported."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ready = False

    def run(
        self,
        argv: list[str],
        *,
        kill_after: float | None = None,
        kill_at_call: int | None = None,
        signal_after: tuple[float, int] | None = None,
        megabytes: int | None = None,
    ) -> tuple[int, str]:
        """Run a command; return its exit code (negative: the signal that ended it) and what it printed.

        Args:
            argv: The command without ``bancache``.
            kill_after: Seconds until SIGKILL.
            kill_at_call: SIGKILL just before the n-th durable call, from 1 on.
            signal_after: Seconds until another signal.
            megabytes: Limit of the memory that the command may allocate.
        """
        if kill_after is not None:
            signal_after = (kill_after, signal.SIGKILL)
        signals = () if signal_after is None else ((signal_after[0], 0, signal_after[1]),)
        (end,) = self.run_together([argv], signals=signals, kill_at_call=kill_at_call, megabytes=megabytes)
        return end

    def run_together(
        self,
        commands: list[list[str]],
        *,
        signals: Sequence[tuple[float | Path | Callable[[], bool], int, int]] = (),
        kill_at_call: int | None = None,
        megabytes: int | None = None,
        environments: Sequence[dict[str, str]] = (),
        attributes: dict[str, Any] | None = None,
        entry: str = "bancache_cli.app.run",
    ) -> list[tuple[int, str]]:
        """Run several commands at once and return how each ended, as ``run`` does.

        Args:
            commands: The commands without ``bancache``.
            signals: (when, index of the command, signal); when: seconds, a file that must exist, or a condition.
            kill_at_call: SIGKILL for each just before its n-th durable call.
            megabytes: Limit of the memory that each command may allocate.
            environments: Environment variables of each command.
            attributes: Values of attributes of modules, by full name.
            entry: The function that takes each command, by its full name.
        """
        assert self._process.stdin is not None
        if not self._ready:
            self._ready = self._read()["ready"]
        common = {
            "kill_at_call": kill_at_call,
            "megabytes": megabytes,
            "attributes": attributes or {},
            "entry": entry,
        }
        requests = [
            {"argv": argv, "environment": environment, **common}
            for argv, environment in zip(commands, environments or [{}] * len(commands), strict=True)
        ]
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        pids = self._read()["pids"]
        began = time.monotonic()
        for after, which, number in signals:
            while not _is_time(after, began):
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    raise AssertionError(f"{after} did not happen: {self._read()}")
                time.sleep(0.002)
            _send(pids[which], number)
        done = self._read()
        return list(zip(done["codes"], done["outputs"], strict=True))

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


def _is_time(after: float | Path | Callable[[], bool], began: float) -> bool:
    if isinstance(after, Path):
        return after.exists()
    return after() if callable(after) else time.monotonic() - began >= after


def _send(pid: int, number: int) -> None:
    """Send a signal to a child; the server reaps a child only after it ended, so the pid is still its own."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def tree(path: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def epoch_log(checkpoint: Path) -> list[dict[str, Any]]:
    """Return the lines of the log beside a checkpoint."""
    log = checkpoint.with_name(f"{checkpoint.name}.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]
