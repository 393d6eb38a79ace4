"""Runs a function where triton interprets kernels on the CPU, which has to be decided before triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def interpreted(name: str, out: Path) -> Arrays:
    """Return the arrays that ``contracts.NAME.run()`` returns in a process of its own.

    Args:
        name: A module of ``contracts``.
        out: Where the arrays may lie on the way.
    """
    root = Path(__file__).parent.parent.parent
    paths = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "contracts.interpreting", name, str(out)],
        env={
            # Lines are not counted there: each kernel is interpreted one Python instruction at a time.
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return dict(arrays)


if __name__ == "__main__":
    from importlib import import_module

    np.savez(sys.argv[2], **import_module(f"contracts.{sys.argv[1]}").run())
