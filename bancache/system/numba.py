"""Loops compiled by numba, where it is installed; each has a twin in torch or numpy that gives the same bits.

Those go through a batch once for every operation. A loop that does all of them while a few rows are in the cache takes a
fifth to a half of that time where memory is the limit, and less than a tenth of it where arithmetic is
(benchmarks/views.py, benchmarks/targets.py).

Modules with such loops import numba when they are imported, which takes a second, so they are imported where a loop is
first needed: ``views/fused.py``, ``views/walk.py`` and ``encodings/fused.py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Literal

from bancache.errors import UsageError

# Importing numba and loading or compiling a loop cost one to three seconds, and a view saves about a microsecond:
# runs that are shorter than this never notice numba, those that are longer get it back.
WORTH_AFTER_VIEWS = 500_000

Loop = Callable[..., Any]
Accelerator = Literal["auto", "numba", "none"]


def is_installed() -> bool:
    """Whether numba can be imported, asked without importing it."""
    return importlib.util.find_spec("numba") is not None


def require() -> None:
    """Refuse to go on without numba.

    Raises:
        UsageError: numba is not installed.
    """
    if not is_installed():
        raise UsageError("numba is not installed", hint="pip install 'bancache[fast]'")


def loop(*, reorders: bool = False) -> Callable[[Loop], Loop]:
    """Return a decorator that compiles a function at its first call; numba keeps the result on disk.

    Nothing is contracted to a fused multiply-add, and a sum is reordered only where ``reorders`` says that its order
    leaves no trace. Divisions by zero give infinity, since a test for each would keep a loop from becoming vectors.
    """
    import numba

    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc"} if reorders else False}

    def decorated(function: Loop) -> Loop:
        try:
            kept: Loop = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # there is no folder that it could be kept in
            kept = numba.njit(**options)(function)
        return kept

    return decorated
