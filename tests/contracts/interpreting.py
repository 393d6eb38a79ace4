"""Runs functions where triton interprets kernels on the CPU, which has to be decided before triton is imported.

One process runs them all: importing torch there takes as long as interpreting a kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Interpreter:
    """A process that is started by the first function to run."""

    def __init__(self, folder: Path) -> None:
        """Let arrays lie in a folder on the way."""
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def run(self, name: str) -> Arrays:
        """Return the arrays that ``contracts.NAME.run()`` returns there."""
        self._process = process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        out = self._folder / f"{name}.npz"
        process.stdin.write(f"{name} {out}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{name}\n", "what went wrong is on stderr"
        with np.load(out) as arrays:
            return dict(arrays)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def _started() -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent.parent
    paths = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "contracts.interpreting"],
        env={
            # Lines are not counted there: each kernel is interpreted one Python instruction at a time.
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    for line in sys.stdin:
        name, out = line.rstrip("\n").split(" ", 1)
        np.savez(out, **import_module(f"contracts.{name}").run())
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
