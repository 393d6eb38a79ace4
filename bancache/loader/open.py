"""From a cache's path to its batches, with every promise of the cache checked on the way."""

from __future__ import annotations

from pathlib import Path

import torch

from bancache.cache.reader import Cache, open_cache
from bancache.errors import MismatchError
from bancache.loader.cache_targets import CacheTargets, Kept, decoded_bytes
from bancache.loader.loader import Loader, Targets
from bancache.loader.placement import (
    MemoryBudget,
    Placement,
    choose_placement,
    free_on_device,
    free_on_host,
    sentence,
)
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.fingerprint import short
from bancache.system.progress import Progress, Silent
from bancache.system.ranks import ALONE, Rank
from bancache.views import Plan, ViewSpace
from bancache.views.factory import choose_renderer, resident_bytes
from bancache.views.renderer import Normalization, Renderer

_KEPT: dict[Placement, Kept] = {"device": "device", "pinned": "host", "disk": "none", "cpu": "device"}


def open_loader(
    path: Path | str,
    *,
    batch_size: int = 128,
    seed: int = 0,
    temperature: float = 1.0,
    device: torch.device | str = "cpu",
    placement: Placement = "auto",
    data: str | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Open a cache and its training images; ``loader.epoch(e)`` yields images, labels and the teacher's answers.

    Args:
        path: A cache's directory.
        batch_size: Views a step.
        seed: Decides the order of every epoch.
        temperature: Of the teacher's probabilities.
        device: Where batches appear.
        placement: Where images and answers lie.
        data: Read the images from this source instead of where they were at the dump.
        rank: Which of several processes this is that share every batch; from 0.
        world_size: How many of them there are.

    Raises:
        CacheDamagedError: The cache is missing, incomplete or damaged.
        MismatchError: The images are not those that the teacher answered for.
        UsageError: The encoding is not faithful at that temperature, or a batch cannot be shared evenly.
    """
    cache = open_cache(Path(path))
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data)
    return cached_loader(
        cache,
        spec.open("train"),
        batch_size=batch_size,
        seed=seed,
        temperature=temperature,
        device=device,
        placement=placement,
        among=Rank(rank, world_size),
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
    placement: Placement = "auto",
    dtype: torch.dtype = torch.float32,
    decode: bool = True,
    among: Rank = ALONE,
    progress: Progress | None = None,
) -> Loader:
    """Put an open cache and its images together; ``targets`` replaces the cache's own answers.

    Args:
        cache: The teacher's answers.
        data: The images they are for.
        batch_size: Views a step.
        seed: Decides the order of every epoch.
        temperature: Of the teacher's probabilities.
        device: Where batches appear.
        targets: Answers from elsewhere.
        placement: Where images and answers lie; by default where there is room.
        dtype: Of images, where a kernel renders them.
        decode: False to leave the decoding of codes to the loss.
        among: Which of several processes this is that share every batch.
        progress: Is told where everything lies, with the numbers.

    Raises:
        MismatchError: The images are others, or their views come out as other pixels than the teacher saw.
        UsageError: The encoding is not faithful at that temperature, there is no such residence here, or a batch
            cannot be shared evenly.
    """
    device, num_views = torch.device(device), cache.manifest.num_views
    space = ViewSpace.from_dict(cache.manifest.view_space)
    answers = decoded_bytes(cache) if targets is None else 0
    room = memory_budget(data, space, device, answers=answers, num_views=num_views)
    chosen = choose_placement(placement, room, device)
    (progress or Silent()).note(sentence(chosen, room, device))
    at = torch.device("cpu") if chosen == "cpu" else device
    return Loader(
        cached_renderer(cache, data, device=at, dtype=dtype),
        data.labels,
        Plan(len(data), num_views, seed),
        batch_size=batch_size,
        targets=targets or CacheTargets(cache, temperature=temperature, device=at, keep=_KEPT[chosen]),
        device=device,
        decode=decode,
        among=among,
    )


def cached_renderer(
    cache: Cache,
    data: ImageSet,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Renderer:
    """Return the images of a cache, ready to show the very pixels that the teacher saw.

    Raises:
        MismatchError: The images are others, or their views come out as other pixels than the teacher saw.
    """
    cache.require_dataset(data.fingerprint)
    space = ViewSpace.from_dict(cache.manifest.view_space)
    normalization = Normalization.from_dict(cache.manifest.pixels["normalisation"])
    renderer = choose_renderer(data.images, space, normalization, device=torch.device(device), dtype=dtype)
    _require_golden(cache, renderer)
    return renderer


def labels_loader(
    data: ImageSet,
    space: ViewSpace,
    normalization: Normalization,
    plan: Plan,
    *,
    batch_size: int,
    device: torch.device,
    targets: Targets | None = None,
    placement: Placement = "auto",
    dtype: torch.dtype = torch.float32,
    among: Rank = ALONE,
    progress: Progress | None = None,
) -> Loader:
    """Put images and labels together without a cache; arguments as for ``cached_loader``.

    Raises:
        UsageError: The padding does not fit the images, there is no such residence here, or a batch cannot be
            shared evenly.
    """
    room = memory_budget(data, space, device)
    chosen = choose_placement(placement, room, device)
    if device.type == "cuda":  # elsewhere there is nothing to choose
        (progress or Silent()).note(sentence(chosen, room, device))
    at = torch.device("cpu") if chosen == "cpu" else device
    renderer = choose_renderer(data.images, space, normalization, device=at, dtype=dtype)
    return Loader(
        renderer, data.labels, plan, batch_size=batch_size, targets=targets, device=device, among=among
    )


def memory_budget(
    data: ImageSet, space: ViewSpace, device: torch.device, *, answers: int = 0, num_views: int = 1
) -> MemoryBudget:
    """Return the bytes that images and answers need and those that are free now."""
    images = resident_bytes(data.images, space, device)
    return MemoryBudget(images, answers, answers // num_views, free_on_device(device), free_on_host())


def _require_golden(cache: Cache, renderer: Renderer) -> None:
    """Refuse to go on where the same views come out as other pixels than at the dump."""
    stored, found = cache.manifest.pixels["golden"], renderer.golden(cache.manifest.num_views)
    if stored != found:
        raise MismatchError.between(
            "pixels of the same views",
            stored=f"'{short(stored)}'",
            given=f"'{short(found)}'",
            hint="a library renders them otherwise here than where the cache was made; report this",
        )
