"""bancache: run the teacher once, keep its answer to every view, train students from the store.

    from bancache import losses, open_loader

    loader = open_loader("gen0.zarr", batch_size=128, seed=0)
    for batch in loader.epoch(0):
        loss = losses.ban_l(student(batch.images), batch.targets, batch.labels)

The names below are the public interface, beside ``bancache.dump`` and ``bancache.train``, whose functions have
their package's name. They are resolved on first use: importing bancache loads neither torch nor Zarr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bancache import losses
    from bancache.cache.info import describe as describe_cache
    from bancache.cache.reader import Cache, open_cache
    from bancache.checkpoint import load_checkpoint
    from bancache.loader.base import Batch, Loader
    from bancache.loader.dataset import View, ViewDataset
    from bancache.loader.open import open_loader
    from bancache.models.build import build_model
    from bancache.sources import open_source
    from bancache.sources.base import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.teacher import load_teacher
    from bancache.views.space import ViewSpace

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cache",
    "DataSpec",
    "ImageSet",
    "Loader",
    "View",
    "ViewDataset",
    "ViewSpace",
    "build_model",
    "describe_cache",
    "load_checkpoint",
    "load_teacher",
    "losses",
    "open_cache",
    "open_loader",
    "open_source",
]

_HOMES = {
    "Batch": "loader.base:Batch",
    "Cache": "cache.reader:Cache",
    "DataSpec": "sources.spec:DataSpec",
    "ImageSet": "sources.base:ImageSet",
    "Loader": "loader.base:Loader",
    "View": "loader.dataset:View",
    "ViewDataset": "loader.dataset:ViewDataset",
    "ViewSpace": "views.space:ViewSpace",
    "build_model": "models.build:build_model",
    "describe_cache": "cache.info:describe",
    "load_checkpoint": "checkpoint:load_checkpoint",
    "load_teacher": "teacher:load_teacher",
    "losses": "losses:",
    "open_cache": "cache.reader:open_cache",
    "open_loader": "loader.open:open_loader",
    "open_source": "sources:open_source",
}


def __getattr__(name: str) -> object:
    """Import a public name's home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bancache' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    home = import_module(f"bancache.{module}")
    return getattr(home, attribute) if attribute else home
