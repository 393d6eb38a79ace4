"""The batches of a run: images and labels, with soft targets unless labels alone teach."""

from __future__ import annotations

from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.loader import Loader, LoaderOptions, Targets
from bancache.loader.open import cached_loader, labels_loader
from bancache.philox import derive_seed
from bancache.sources.base import ImageSet
from bancache.system.progress import Progress
from bancache.system.ranks import ALONE, Rank
from bancache.training.options import TrainerOptions
from bancache.training.run import Run
from bancache.training.step import decodes_itself


def make_loader(
    run: Run,
    data: ImageSet,
    options: TrainerOptions,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    rank: Rank = ALONE,
) -> Loader:
    """Open the training images of a run, and the targets of ``cache`` or ``targets``, for one process.

    Raises:
        MismatchError: The cache belongs to other images.
        UsageError: The encoding is not precise enough at the run's temperature, the placement is not possible on
            this device, or a batch cannot be shared evenly.
    """
    recipe, device = run.recipe, options.device
    seed = derive_seed(run.seed, "order")
    # Autocast would round the images anyway. A teacher that runs online has its own precision.
    rounded = recipe.amp and device.type == "cuda" and targets is None
    common: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "device": device,
        "targets": targets,
        "placement": options.placement,
        "dtype": torch.bfloat16 if rounded else torch.float32,
        "among": rank,
        "progress": progress,
    }
    if cache is None:
        plan = Plan(len(data), run.num_views, seed)
        return labels_loader(data, run.space, run.normalization, plan, **common)
    decode = not decodes_itself(run, device, len(data.classes))
    return cached_loader(cache, data, seed=seed, temperature=recipe.temperature, decode=decode, **common)
