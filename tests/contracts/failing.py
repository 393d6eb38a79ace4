"""Calls of the system that fail: the n-th of a process, whichever it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ("fsync", "link", "rename", "replace", "mkdir", "unlink", "rmdir")


class Killed(Exception):
    """The end of a process, as far as one can have it without a process.

    Not a KeyboardInterrupt: in a thread of Zarr's, that would be waited for without end.
    """


def fail_at(patch: pytest.MonkeyPatch, number: int, error: Callable[[], BaseException]) -> list[str]:
    """Make the n-th call of ``CALLS`` raise; return the list that the names of calls are added to."""
    made: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == number:
                raise error()
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        patch.setattr(os, name, counted(name, getattr(os, name)))
    return made
