"""The batches of a run: with a teacher's answers, or with labels alone."""

from __future__ import annotations

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


def loader_of(
    run: Run,
    data: ImageSet,
    place: TrainerOptions,
    cache: Cache | None,
    targets: Targets | None,
    progress: Progress,
    among: Rank = ALONE,
) -> Loader:
    """Open the images of a run and the answers to them, where ``place`` wants them, for one of its processes.

    Raises:
        MismatchError: The cache is not for these images.
        UsageError: The encoding is not faithful at the run's temperature, there is no such residence here, or a batch
            cannot be shared evenly.
    """
    recipe, device = run.recipe, place.device
    # What autocast would round images to; a teacher that is asked at every step has a precision of its own.
    rounded = recipe.amp and device.type == "cuda" and targets is None
    options = LoaderOptions(
        batch_size=recipe.batch_size,
        seed=derive_seed(run.seed, "order"),
        temperature=recipe.temperature,
        device=device,
        placement=place.placement,
        dtype=torch.bfloat16 if rounded else torch.float32,
        decode=cache is None or not decodes_itself(run, device, len(data.classes)),
        rank=among,
    )
    if cache is not None:
        return cached_loader(cache, data, options, targets=targets, progress=progress)
    return labels_loader(
        data, run.space, run.normalization, run.num_views, options, targets=targets, progress=progress
    )
