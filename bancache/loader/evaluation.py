"""Batches of the test split as the students of a cache are tested, for a loop of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch

from bancache.cache.reader import Cache, open_cache
from bancache.errors import UsageError
from bancache.evaluation.predict import images_at_once
from bancache.loader.batch import Batch
from bancache.loader.open import student_normalization
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import choose_device
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization


class EvaluationLoader:
    """Every picture of a split once, in the split's order, without augmentation; ``len`` is the number of batches.

    ``for images, labels, *_ in loader`` yields a ``Batch`` without targets; the last one may be smaller. Each loop begins
    anew.

    Attributes:
        classes: Names of the classes.
        normalization: Mean and std of the images.
        samples: Number of pictures.
    """

    def __init__(
        self,
        data: ImageSet,
        space: ViewSpace,
        normalization: Normalization,
        *,
        size: tuple[int, int] | None,
        batch_size: int | None,
        device: torch.device | str,
    ) -> None:
        """Keep the pictures on the device; ``space`` is that of the training, which says how to test."""
        self._renderer = choose_renderer(
            data.images, space.evaluation, normalization, size=size, device=device
        )
        self._labels, self._batch_size = data.labels, batch_size or images_at_once(*self._renderer.size)
        self.classes, self.normalization, self.samples = data.classes, normalization, len(data)

    def __len__(self) -> int:
        """Return the number of batches."""
        return (self.samples + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        every = np.arange(self.samples)
        views = self._renderer.space.view_ids(every, 0)
        for step, (_, _, images) in enumerate(self._renderer.batches(every, views, self._batch_size)):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            labels = torch.from_numpy(self._labels[every[part]]).to(self._renderer.device)
            yield Batch(images, labels, None, every[part], views[part])


def test_loader(
    cache: str | os.PathLike[str] | Cache,
    *,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    size: int | None = None,
    data: str | None = None,
) -> EvaluationLoader:
    """Open the test split of a cache's data, shown as ``evaluate`` shows it to the students of this cache.

    Args:
        cache: A cache, or its directory.
        batch_size: Images per batch; by default at most 500, and fewer of large images.
        device: Where batches appear: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        size: Height and width of the images in pixels, as for ``open_loader``; by default as the teacher saw them.
        data: Read the images from this source instead of the source that the cache names.

    Raises:
        CacheDamagedError: The cache is missing, incomplete or damaged.
        MismatchError: The training images beside them are not those of the cache.
        UsageError: The batch size is not positive, or there is no such device.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batches of {batch_size} images", hint="give a batch_size of 1 or more")
    cache = cache if isinstance(cache, Cache) else open_cache(cache)
    spec = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data)
    train = spec.open("train")
    cache.require_dataset(train.fingerprint)
    return EvaluationLoader(
        spec.open("test"),
        ViewSpace.from_dict(cache.manifest.view_space),
        student_normalization(cache, train),
        size=cache.manifest.teacher_size if size is None else (size, size),
        batch_size=batch_size,
        device=choose_device(str(device)),
    )
