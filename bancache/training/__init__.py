"""Training one model, from labels or from a cache."""

from bancache.training.loop import train
from bancache.training.options import TrainerOptions
from bancache.training.recipe import PRESETS, Recipe
from bancache.training.run import Run, run_for_cache, run_for_labels

__all__ = ["PRESETS", "Recipe", "Run", "TrainerOptions", "run_for_cache", "run_for_labels", "train"]
