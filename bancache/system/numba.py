"""Loops compiled by numba, where it is installed; each has a reference in torch that gives the same bits.

Modules with such loops are named ``numba_*`` and import numba when they are imported, which takes a second: they are
imported where a loop is first needed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

Loop = TypeVar("Loop", bound=Callable[..., Any])


def is_installed() -> bool:
    """Whether numba can be imported, asked without importing it."""
    return importlib.util.find_spec("numba") is not None


def loop(function: Loop) -> Loop:
    """Compile a function at its first call; numba keeps the result on disk.

    Nothing is contracted to a fused multiply-add and no sum of floats is reordered. Divisions by zero give infinity, since
    a test for each would keep a loop from becoming vectors. Other threads run meanwhile.
    """
    import numba

    options: Any = {"nogil": True, "error_model": "numpy"}
    try:
        kept: Loop = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that it could be kept in
        kept = numba.njit(**options)(function)
    return kept


def sealed(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of what loops only read, always: for arrays that may be written numba would compile again."""
    view = array.view()
    view.flags.writeable = False
    return view
