"""bancache: run a teacher once, store its soft targets for every augmented view, train students from the store.

    import bancache as bc

    for images, labels, targets, *_ in bc.open_loader("gen0.zarr", batch_size=128):
        loss = bc.losses.ban_l(student(images), targets, labels)

The names in ``__all__`` are the public interface. Each is imported on first use, so that ``import bancache`` loads
neither torch nor Zarr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bancache.system.late import late

if TYPE_CHECKING:
    from bancache import losses
    from bancache.cache.info import describe as describe_cache
    from bancache.cache.reader import Cache, open_cache
    from bancache.cluster.tasks import dump_shard, plan_shards
    from bancache.dumping.run import dump
    from bancache.dumping.settings import DumpSettings
    from bancache.evaluation.checkpoints import Evaluation, evaluate
    from bancache.loader.batch import Batch
    from bancache.loader.dataset import View, ViewDataset
    from bancache.loader.evaluation import EvaluationLoader, test_loader
    from bancache.loader.loader import Loader
    from bancache.loader.open import open_loader
    from bancache.models.build import build_model
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.ensemble import ensemble
    from bancache.models.start import load_start
    from bancache.models.teacher import load_teacher
    from bancache.sources import open_source
    from bancache.sources.image_set import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.training.loop import train
    from bancache.training.options import TrainerOptions
    from bancache.training.own_loop import save_checkpoint
    from bancache.training.recipe import Recipe
    from bancache.training.run import run_for_cache, run_for_labels
    from bancache.views.model_input import Normalization
    from bancache.views.space import ViewSpace

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "Cache",
    "DataSpec",
    "DumpSettings",
    "Evaluation",
    "EvaluationLoader",
    "ImageSet",
    "Loader",
    "Normalization",
    "Recipe",
    "TrainerOptions",
    "View",
    "ViewDataset",
    "ViewSpace",
    "build_model",
    "describe_cache",
    "dump",
    "dump_shard",
    "ensemble",
    "evaluate",
    "load_checkpoint",
    "load_start",
    "load_teacher",
    "losses",
    "open_cache",
    "open_loader",
    "open_source",
    "plan_shards",
    "run_for_cache",
    "run_for_labels",
    "save_checkpoint",
    "test_loader",
    "train",
]

_HOMES = {
    "Batch": "loader.batch",
    "Cache": "cache.reader",
    "DataSpec": "sources.spec",
    "DumpSettings": "dumping.settings",
    "Evaluation": "evaluation.checkpoints",
    "EvaluationLoader": "loader.evaluation",
    "ImageSet": "sources.image_set",
    "Loader": "loader.loader",
    "Normalization": "views.model_input",
    "Recipe": "training.recipe",
    "TrainerOptions": "training.options",
    "View": "loader.dataset",
    "ViewDataset": "loader.dataset",
    "ViewSpace": "views.space",
    "build_model": "models.build",
    "describe_cache": "cache.info:describe",
    "dump": "dumping.run",
    "dump_shard": "cluster.tasks",
    "ensemble": "models.ensemble",
    "evaluate": "evaluation.checkpoints",
    "load_checkpoint": "models.checkpoint",
    "load_start": "models.start",
    "load_teacher": "models.teacher",
    "losses": "losses:",
    "open_cache": "cache.reader",
    "open_loader": "loader.open",
    "open_source": "sources",
    "plan_shards": "cluster.tasks",
    "run_for_cache": "training.run",
    "run_for_labels": "training.run",
    "save_checkpoint": "training.own_loop",
    "test_loader": "loader.evaluation",
    "train": "training.loop",
}

__getattr__ = late(__name__, _HOMES)
