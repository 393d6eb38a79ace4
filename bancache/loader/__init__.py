"""Batches of views with their soft targets, from images and a cache."""

from bancache.loader.loader import Batch, Loader, LoaderOptions, Targets

__all__ = ["Batch", "Loader", "LoaderOptions", "Targets"]
