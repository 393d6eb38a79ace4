"""Batches of views with their soft targets, from images and a cache."""

from bancache.loader.batch import Batch
from bancache.loader.loader import Loader, LoaderOptions
from bancache.loader.targets import Targets

__all__ = ["Batch", "Loader", "LoaderOptions", "Targets"]
