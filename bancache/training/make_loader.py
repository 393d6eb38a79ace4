"""The batches of a run: images and labels, with soft targets unless labels alone teach."""

from __future__ import annotations

import torch

from bancache.cache.reader import Cache
from bancache.loader import Loader, LoaderOptions, Targets
from bancache.loader.open import cached_loader, labels_loader
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
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
    # Autocast would round the images anyway. A teacher that runs online has its own precision.
    rounded = recipe.amp and device.type == "cuda" and targets is None
    chosen = LoaderOptions(
        batch_size=recipe.batch_size,
        seed=derive_seed(run.seed, "order"),
        temperature=recipe.temperature,
        device=device,
        placement=options.placement,
        dtype=torch.bfloat16 if rounded else torch.float32,
        decode=cache is None or not decodes_itself(run, device, len(data.classes)),
        rank=rank,
    )
    if cache is not None:
        return cached_loader(cache, data, chosen, targets=targets, progress=progress)
    return labels_loader(
        data, run.space, run.normalization, run.num_views, chosen, targets=targets, progress=progress
    )
