"""From a cache's path to its batches, with every promise of the cache checked on the way."""

from __future__ import annotations

from pathlib import Path

import torch

from bancache.cache.reader import Cache, open_cache
from bancache.errors import MismatchError
from bancache.fingerprint import short
from bancache.loader.base import Loader, Targets
from bancache.loader.cached import CacheTargets
from bancache.progress import Progress
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import Plan, ViewSpace
from bancache.views.apply import Normalisation, Renderer


def open_loader(
    path: Path | str,
    *,
    batch_size: int = 128,
    seed: int = 0,
    temperature: float = 1.0,
    device: torch.device | str = "cpu",
    data: str | None = None,
) -> Loader:
    """Open a cache and its training images; ``loader.epoch(e)`` yields images, labels and the teacher's answers.

    Args:
        path: A cache's directory.
        batch_size: Views a step.
        seed: Decides the order of every epoch.
        temperature: Of the teacher's probabilities.
        device: Where images and answers are kept and batches appear.
        data: Read the images from this source instead of where they were at the dump.

    Raises:
        CacheDamagedError: The cache is missing, incomplete or damaged.
        MismatchError: The images are not those that the teacher answered for.
        UsageError: The encoding is not faithful at that temperature.
    """
    cache = open_cache(Path(path))
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data)
    return cached_loader(
        cache, spec.open("train"), batch_size=batch_size, seed=seed, temperature=temperature, device=device
    )


def cached_loader(
    cache: Cache,
    data: ImageSet,
    *,
    batch_size: int,
    seed: int,
    temperature: float = 1.0,
    device: torch.device | str = "cpu",
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> Loader:
    """Put an open cache and its images together; ``targets`` replaces the cache's own answers.

    Raises:
        MismatchError: The images are others, or their views come out as other pixels than the teacher saw.
        UsageError: The encoding is not faithful at that temperature.
    """
    return Loader(
        cached_renderer(cache, data, device=device),
        data.labels,
        Plan(len(data), cache.manifest.slots, seed),
        batch_size=batch_size,
        targets=targets or CacheTargets(cache, temperature=temperature, device=device, progress=progress),
    )


def cached_renderer(cache: Cache, data: ImageSet, *, device: torch.device | str = "cpu") -> Renderer:
    """Return the images of a cache, ready to show the very pixels that the teacher saw.

    Raises:
        MismatchError: The images are others, or their views come out as other pixels than the teacher saw.
    """
    cache.require_dataset(data.fingerprint)
    manifest = cache.manifest
    space = ViewSpace.from_dict(manifest.view_space)
    normalisation = Normalisation.from_dict(manifest.pixels["normalisation"])
    renderer = Renderer(data.images, space, normalisation, device=device)
    _require_golden(cache, renderer)
    return renderer


def _require_golden(cache: Cache, renderer: Renderer) -> None:
    """Refuse to go on where the same views come out as other pixels than at the dump."""
    stored, found = cache.manifest.pixels["golden"], renderer.golden(cache.manifest.slots)
    if stored != found:
        raise MismatchError.between(
            "pixels of the same views",
            stored=f"'{short(stored)}'",
            given=f"'{short(found)}'",
            hint="a library renders them otherwise here than where the cache was made; report this",
        )
