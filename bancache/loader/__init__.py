"""Batches of views with the teacher's answers to them: where images and cache meet."""

from bancache.loader.loader import Batch, Loader, Targets

__all__ = ["Batch", "Loader", "Targets"]
