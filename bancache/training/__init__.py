"""Training one model, from labels or from a cache.

Recipes and defaults need no torch; it is loaded by the first use of the other names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bancache.training.recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from bancache.training.loop import train
    from bancache.training.options import TrainerOptions
    from bancache.training.run import Run, run_for_cache, run_for_labels

__all__ = ["PRESETS", "Recipe", "Run", "TrainerOptions", "run_for_cache", "run_for_labels", "train"]

_LATE = {
    "train": "loop",
    "TrainerOptions": "options",
    "Run": "run",
    "run_for_cache": "run",
    "run_for_labels": "run",
}


def __getattr__(name: str) -> object:
    """Import what needs torch on first use (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bancache.training.{_LATE[name]}"), name)
