"""Training one net, on labels or on a cache."""

from bancache.train.loop import Trained, train
from bancache.train.place import Place
from bancache.train.recipe import PRESETS, Recipe
from bancache.train.run import Run, run_for_cache, run_for_labels

__all__ = ["PRESETS", "Place", "Recipe", "Run", "Trained", "run_for_cache", "run_for_labels", "train"]
