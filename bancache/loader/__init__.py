"""Batches of views with the teacher's answers to them: where images and cache meet."""

from bancache.loader.base import Batch, Loader, Targets

__all__ = ["Batch", "Loader", "Targets"]
