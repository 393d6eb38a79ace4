"""ViewDataset: a cache as a torch Dataset, for your own DataLoader, sampler and loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from bancache.cache.reader import open_cache
from bancache.encodings.changes import UNCHANGED
from bancache.errors import UsageError
from bancache.loader.cache_targets import CacheTargets, Kept
from bancache.loader.labels import labels_of
from bancache.loader.open import cached_renderer, changed
from bancache.losses.weights import Labels, MixedLabels
from bancache.philox import derive_seed
from bancache.sources.spec import DataSpec
from bancache.system.address import as_place

Keep = Literal["view", "all"]
Transform = Callable[[torch.Tensor], torch.Tensor]


class View(NamedTuple):
    """One view of a sample, or a batch of views with a first axis B; names and order are those of a ``Batch``.

    Attributes:
        images: Normalized view, float32 (channels, H, W).
        labels: int64 scalar; of a mixed view ``MixedLabels`` of scalars, which a DataLoader collates, too.
        targets: The teacher's probabilities for exactly this view, float32 (classes,).
        samples: Position in the data set, int64 scalar.
        views: View id, int64 scalar.
    """

    images: torch.Tensor
    labels: Labels
    targets: torch.Tensor
    samples: torch.Tensor
    views: torch.Tensor


class ViewDataset(Dataset[View]):
    """The training images of a cache, each as the view of one epoch with its soft targets.

    Works with torch's DataLoader, any sampler and any number of workers. ``dataset[7]`` is one view, ``dataset[-1]`` the
    last one; ``dataset[[7, 3]]`` and ``dataset[10:20]`` are batches that are rendered at once. An item depends on sample
    and epoch alone, so order, workers and ranks change nothing. The pixels are those of a ``Loader``, bit for bit.

    Each process reads and checks the whole view of an epoch at its first item of that epoch. A forked worker shares the
    images with its parent, a spawned worker opens them again.

    Attributes:
        classes: Number of classes of the targets.
        num_views: Number of epochs with different views; epoch e shows view index e % num_views.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        temperature: float = 1.0,
        size: int | None = None,
        data: str | None = None,
        keep: Keep = "view",
        transform: Transform | None = None,
        targets: str = UNCHANGED,
        seed: int = 0,
    ) -> None:
        """Open a cache and its training images.

        Args:
            path: A cache's directory, or its address in an object store. Workers must then be spawned, not forked.
            temperature: T of the teacher's probabilities.
            size: Height and width of the images in pixels; by default as the teacher saw them.
            data: Read the images from this source instead of the source that the cache names.
            keep: Encoded targets that each process keeps in memory: the current ``view``, or ``all`` that it has read.
            transform: Applied to the image of each item, float32 (channels, H, W), already normalized. The teacher did
                not see what it changes.
            targets: How the targets are changed when they are read, as for ``open_loader``.
            seed: Decides what such a change draws; the items are those of ``open_loader`` with this seed.

        Raises:
            CacheDamagedError: The cache is missing, incomplete or damaged.
            MismatchError: The images are not those of the cache.
            UsageError: The encoding is not accurate enough at this temperature, or there is no such change of targets,
                or no such ``keep``.
        """
        if keep not in get_args(Keep):
            raise UsageError(f"nothing is called keep={keep!r}", hint="keep is 'view' or 'all'")
        self._arguments = as_place(path).absolute(), temperature, size, data, keep, targets, seed
        self._transform = transform
        # In shared memory, so that workers see it too, also persistent ones.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._opened: _Opened | None = None
        self.classes, self.num_views = self._open().classes, self._open().num_views

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views are shown, from 0 on; call it before iterating, in the process that iterates.

        Raises:
            UsageError: The epoch is negative.
        """
        if epoch < 0:
            raise UsageError(f"there is no epoch {epoch}", hint="epochs are counted from 0")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._open().labels)

    def __getitem__(self, index: int | slice | Sequence[int] | torch.Tensor) -> View:
        """Return the view of one sample, or the views of several samples as one batch.

        Raises:
            IndexError: A sample does not exist.
        """
        if isinstance(index, int | np.integer) or (isinstance(index, torch.Tensor) and not index.ndim):
            return self.__getitems__([int(index)])[0]
        return self._batch(range(*index.indices(len(self))) if isinstance(index, slice) else index)

    def __getitems__(self, indices: Sequence[int]) -> list[View]:
        """Return the views of samples, rendered together; torch's DataLoader calls it once per batch."""
        images, labels, *others = self._batch(indices)
        each = map(MixedLabels, *labels) if isinstance(labels, MixedLabels) else labels
        return [View(*row) for row in zip(images, each, *others, strict=True)]

    def _batch(self, indices: Sequence[int] | torch.Tensor) -> View:
        opened, samples = self._open(), torch.as_tensor(indices)
        count = len(opened.labels)
        if len(samples) and (samples.is_floating_point() or samples.dtype == torch.bool):
            # As 0 and 1, a mask would be the first two samples many times.
            raise IndexError(f"samples are whole numbers, not {samples.dtype}: give mask.nonzero()[:, 0]")
        samples = samples.to(torch.int64)
        if len(samples) and not -count <= int(samples.min()) <= int(samples.max()) < count:
            # Not an error of bancache: Python ends a loop over a sequence by IndexError.
            raise IndexError(f"samples are 0 to {count - 1}, not {samples.tolist()}")
        view = opened.batch(samples.where(samples >= 0, samples + count), int(self._epoch))
        if self._transform is None or not len(samples):
            return view
        return view._replace(images=torch.stack([self._transform(image) for image in view.images]))

    def _open(self) -> _Opened:
        """Return what this process has open; a forked process starts with what its parent has open."""
        if self._opened is None:
            self._opened = _Opened(*self._arguments)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the path alone: a spawned process opens cache and images itself."""
        return {**self.__dict__, "_opened": None}


class _Opened:
    """A cache and its images, open in one process, at the view index of the last item."""

    def __init__(
        self,
        path: Path,
        temperature: float,
        size: int | None,
        data: str | None,
        keep: Keep,
        change: str,
        seed: int,
    ) -> None:
        cache = open_cache(path)
        self.num_views, self.classes = cache.manifest.num_views, cache.manifest.classes
        kept: Kept = "device" if keep == "all" else "none"
        stored = CacheTargets(cache, temperature=temperature, keep=kept)
        images = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data).open("train")
        shown = None if size is None else (size, size)
        self._renderer = cached_renderer(cache, images, size=shown)
        self._targets = changed(stored, change, images, self._renderer.space, derive_seed(seed, "targets"))
        self.labels = torch.tensor(images.labels)
        self._view_index, self._views = -1, self.labels[:0]

    def batch(self, samples: torch.Tensor, epoch: int) -> View:
        """Return the views of samples, int64 (B,), in an epoch."""
        if (view_index := epoch % self.num_views) != self._view_index:
            # Nothing is read ahead: a forked process does not have its parent's threads.
            self._targets.begin(view_index, following=view_index)
            all_samples = np.arange(len(self.labels))
            self._views = torch.from_numpy(self._renderer.space.view_ids(all_samples, view_index).copy())
            self._view_index = view_index
        views = self._views.index_select(0, samples)
        _, rows = self._renderer.to_device(samples.numpy(), views.numpy())
        images = self._renderer.render(samples, rows)
        labels = labels_of(self.labels, samples, rows, self._renderer.space.layout)
        return View(images, labels, self._targets.probabilities(samples, images), samples, views)
