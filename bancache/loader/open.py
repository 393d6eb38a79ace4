"""Functions that open a loader: from a cache's path, from an open cache, or from labels alone."""

from __future__ import annotations

import os

import numpy as np
import torch

from bancache.cache.reader import Cache, open_cache
from bancache.encodings.changes import UNCHANGED, check_change
from bancache.errors import UsageError
from bancache.loader.cache_targets import CacheTargets, Kept, decoded_bytes
from bancache.loader.changed_targets import ChangedTargets, require_changeable
from bancache.loader.loader import Loader, LoaderOptions
from bancache.loader.placement import MemoryBudget, Placement, choose_placement, describe
from bancache.loader.targets import Targets
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.batch_memory import free_bytes
from bancache.system.device import choose_device
from bancache.system.memory import free_on_host
from bancache.system.progress import Progress
from bancache.system.ranks import Rank
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer, renderer_of_some, resident_bytes
from bancache.views.model_input import Normalization
from bancache.views.renderer import GOLDEN_IMAGES, Renderer
from bancache.views.streamed_renderer import StreamedRenderer

_KEPT: dict[Placement, Kept] = {"device": "device", "pinned": "host", "disk": "none", "cpu": "device"}


def open_loader(
    path: str | os.PathLike[str] | Cache,
    *,
    batch_size: int = 128,
    seed: int = 0,
    temperature: float = 1.0,
    targets: str = UNCHANGED,
    device: torch.device | str = "cpu",
    placement: Placement = "auto",
    size: int | None = None,
    data: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    keep_last: bool = False,
    shuffle_block: int = 0,
) -> Loader:
    """Open a cache and its training images; ``for batch in loader`` yields an epoch of images, labels and targets.

    Args:
        path: A cache's directory, its address in an object store, such as ``s3://bucket/gen0.zarr``, or an open cache.
        batch_size: Views per step, over all processes.
        seed: Decides the order of every epoch, and what a change of the targets draws.
        temperature: T of the teacher's probabilities.
        targets: How they are changed when they are read: ``smooth0.1``, ``max-uniform``, ``permute-rest``,
            ``shuffle-in-class`` or ``class-mean``.
        device: Where batches appear: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        placement: Where images and targets are kept; by default where they fit.
        size: Height and width of the batches' images in pixels; by default as the teacher saw them.
        data: Read the images from this source instead of the source that the cache names.
        rank: This process among those that share every batch, from 0.
        world_size: The number of these processes.
        keep_last: Whether the samples that remain after an epoch's last full batch are one smaller batch more.
        shuffle_block: Consecutive samples that an epoch reads as one run, mixed with those of seven other runs, for images on
            disks and in object stores; 0 for samples in any order.

    Raises:
        CacheDamagedError: The cache is missing, incomplete or damaged.
        MismatchError: The images are not those of the cache.
        StorageError: The object store cannot be reached or refuses.
        UsageError: The encoding is not accurate enough at this temperature, a batch is empty or cannot be shared evenly, the
            seed is negative, or there is no such change of targets or device.
    """
    cache = path if isinstance(path, Cache) else open_cache(path)
    images = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data).open("train")
    options = LoaderOptions(
        batch_size=batch_size,
        seed=seed,
        temperature=temperature,
        targets=targets,
        targets_seed=derive_seed(seed, "targets"),
        device=choose_device(str(device)),
        placement=placement,
        shuffle_block=shuffle_block,
        rank=Rank(rank, world_size),
        keep_last=keep_last,
    )
    shown = None if size is None else (size, size)
    return cached_loader(cache, images, options, size=shown)


def cached_loader(
    cache: Cache,
    data: ImageSet,
    options: LoaderOptions,
    *,
    targets: Targets | None = None,
    normalization: Normalization | None = None,
    size: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Loader:
    """Combine an open cache with its images; ``targets`` replaces the cache's own targets.

    ``normalization`` is that of the batches; by default the student's, see ``student_normalization``. ``size`` is their
    height and width; by default the teacher's.
    """
    device, num_views = torch.device(options.device), cache.manifest.num_views
    space = ViewSpace.from_dict(cache.manifest.view_space)
    encoded = decoded_bytes(cache) if targets is None else 0
    size = size or cache.manifest.teacher_size
    images = resident_bytes(data.images, space, device, size)
    placement, near = _placed(options, images, encoded, num_views, progress)
    renderer = cached_renderer(cache, data, normalization, size=size, device=near, dtype=options.dtype)
    _tell(renderer, options, progress)
    if targets is None:
        stored = CacheTargets(
            cache, temperature=options.temperature, device=near, keep=_KEPT[placement], decode_on=device
        )
        targets = changed(stored, options.targets, data, space, options.targets_seed)
    elif options.targets != UNCHANGED:
        raise UsageError(f"targets '{options.targets}' are for a cache", hint="leave out --targets")
    return Loader(renderer, data.labels, num_views, options, targets=targets)


def changed(
    targets: CacheTargets, change: str, data: ImageSet, space: ViewSpace, seed: int
) -> CacheTargets | ChangedTargets:
    """Return a cache's targets, changed when they are read as ``change`` says."""
    if change == UNCHANGED:
        return targets
    check_change(change)
    require_changeable(change, space.layout)
    return ChangedTargets(targets, change, data.labels, len(data.classes), seed)


def labels_loader(
    data: ImageSet,
    space: ViewSpace,
    normalization: Normalization,
    num_views: int,
    options: LoaderOptions,
    *,
    size: tuple[int, int] | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> Loader:
    """Combine images and labels without a cache; ``size`` is that of the batches, by default that of the images."""
    device = torch.device(options.device)
    # On a CPU there is nothing to choose, and nothing to report.
    told = progress if device.type == "cuda" else None
    _, near = _placed(options, resident_bytes(data.images, space, device, size), 0, num_views, told)
    renderer = choose_renderer(data.images, space, normalization, size=size, device=near, dtype=options.dtype)
    _tell(renderer, options, progress)
    return Loader(renderer, data.labels, num_views, options, targets=targets)


def teacher_normalization(cache: Cache) -> Normalization:
    """Return the normalization of the images that the teacher was given."""
    return Normalization.from_dict(cache.manifest.pixels["normalisation"])


def student_normalization(cache: Cache, data: ImageSet) -> Normalization:
    """Return the normalization of a student's images: that of the data.

    A third-party teacher may have another one. Older caches do not record whether it has; their students were
    normalized as their teachers, and still are.
    """
    if "input" not in cache.manifest.teacher:
        return teacher_normalization(cache)
    return Normalization(data.statistics.mean, data.statistics.std)


def cached_renderer(
    cache: Cache,
    data: ImageSet,
    normalization: Normalization | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Renderer:
    """Return a renderer of a cache's images, by default at the teacher's size.

    Other images, or other pixels than at the dump, are a MismatchError.
    """
    cache.require_dataset(data.fingerprint)
    space = ViewSpace.from_dict(cache.manifest.view_space)
    teachers, own = teacher_normalization(cache), cache.manifest.teacher_size
    normalization, size = normalization or student_normalization(cache, data), size or own
    renderer = choose_renderer(data.images, space, normalization, size=size, device=device, dtype=dtype)
    same = renderer
    if (normalization, size) != (teachers, own):  # the stored hash is of the teacher's pixels
        first = np.arange(min(GOLDEN_IMAGES, len(data)))
        same, _ = renderer_of_some(data.images, first, space, teachers, size=own)
    cache.manifest.require_pixels(same.golden(cache.manifest.num_views))
    return renderer


def _tell(renderer: Renderer, options: LoaderOptions, progress: Progress | None) -> None:
    """Say how pictures are read that are not in memory, and what that takes of it."""
    if progress is not None and isinstance(renderer, StreamedRenderer):
        progress.log(renderer.describe(options.batch_size // options.rank.count))


def _placed(
    options: LoaderOptions, images: int, targets: int, num_views: int, progress: Progress | None
) -> tuple[Placement, torch.device]:
    """Choose a placement for bytes, report it, and return it with the device that makes the batches."""
    device = torch.device(options.device)
    on_device = free_bytes(device) if device.type == "cuda" else 0
    budget = MemoryBudget(images, targets, targets // num_views, on_device, free_on_host())
    placement = choose_placement(options.placement, budget, device)
    if progress is not None:
        progress.log(describe(placement, budget, device))
    return placement, torch.device("cpu") if placement == "cpu" else device
