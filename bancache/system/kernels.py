"""Functions that kernels of Triton call."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def called_by_kernels(function: Callable[..., Any]) -> Any:
    """Make a function known to kernels, where Triton is installed; the compiler puts its body in their place."""
    if find_spec("triton") is None:
        return function
    import triton

    return triton.jit(function)
