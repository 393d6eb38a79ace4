"""Training one model, from labels or from a cache.

Recipes and defaults need no torch; it is loaded by the first use of the other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bancache.system.late import late
from bancache.training.recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from bancache.training.loop import train
    from bancache.training.options import TrainerOptions
    from bancache.training.run import Run, run_for_cache, run_for_labels

__all__ = ["PRESETS", "Recipe", "Run", "TrainerOptions", "run_for_cache", "run_for_labels", "train"]

_HOMES = {
    "train": "loop",
    "TrainerOptions": "options",
    "Run": "run",
    "run_for_cache": "run",
    "run_for_labels": "run",
}

__getattr__ = late(__name__, _HOMES)
