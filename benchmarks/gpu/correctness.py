"""Do the tests that need a GPU pass? They run by pytest in a process of their own, for a limited time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.session import Row

ROOT = Path(__file__).parents[2]
# Of a process that starts there, installed or not.
PLACES = os.pathsep.join([str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")])
_LINE = re.compile(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL)\b", re.MULTILINE)


def run(seconds: float, folder: Path) -> Row:
    """Return how many passed and failed, and the names of those that did not pass.

    What pytest printed stays in ``gpu-tests.txt`` in ``folder``.
    """
    if find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-m",
        "gpu",
        "--color=no",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    log = folder / "gpu-tests.txt"
    with log.open("w") as stream:
        try:
            code: int | str = subprocess.run(
                [*command, *files],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": PLACES, "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {seconds:.0f} s"
    return {**summary(log.read_text()), "exit": code}


def summary(printed: str) -> Row:
    r"""Return what the lines of ``pytest -v`` say.

    >>> summary("a.py::one PASSED [ 50%]\na.py::two[b c] FAILED [100%]\n")
    {'passed': 1, 'failed': ['a.py::two[b c]'], 'skipped_tests': 0}
    """
    found = _LINE.findall(printed)
    return {
        "passed": sum(said == "PASSED" for _, said in found),
        "failed": [name for name, said in found if said in ("FAILED", "ERROR")],
        "skipped_tests": sum(said == "SKIPPED" for _, said in found),
    }
