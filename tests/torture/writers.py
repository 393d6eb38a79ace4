"""Processes that write a small cache and are disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.disks import LoopDisk

ROOT = Path(__file__).parent.parent.parent
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
}


def start(path: Path, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start writing a cache, under another program where one is named."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "contracts.writing", str(path)],
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def shards(output: str) -> set[int]:
    """Return the shards that a process said were on disk."""
    return {int(line) for line in output.splitlines() if line.isdecimal()}


def until_cut(disk: LoopDisk, path: Path, *, after: int) -> set[int]:
    """Cut a disk's power once ``after`` shards are acknowledged, restart it, return what was acknowledged.

    Raises:
        OSError: The kernel has no such call.
    """
    process = start(path)
    assert process.stdout is not None
    said = "".join(process.stdout.readline() for _ in range(after))
    try:
        disk.cut()
    except OSError:
        process.kill()
        process.communicate()
        raise
    said += process.communicate()[0]
    disk.restart()
    return shards(said)
