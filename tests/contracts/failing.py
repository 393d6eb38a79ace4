"""System calls that fail: the n-th of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ("fsync", "link", "rename", "replace", "mkdir", "unlink", "rmdir")


class Killed(Exception):
    """Stands for the death of a process: bancache catches no such error."""


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
