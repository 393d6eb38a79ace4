"""ViewDataset: a cache for those who keep their own DataLoader, sampler and loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from bancache.cache.reader import open_cache
from bancache.errors import UsageError
from bancache.loader.cache_targets import CacheTargets, Kept
from bancache.loader.open import cached_renderer
from bancache.sources.spec import DataSpec

Keep = Literal["slab", "all"]


class View(NamedTuple):
    """One sample's view, or a batch of them with a first axis B; the names are those of a ``Batch``.

    Attributes:
        images: Normalized view, float32 (channels, H, W).
        labels: int64 scalar.
        targets: The teacher's probabilities for exactly this view, float32 (classes,).
        samples: Position in the data set, int64 scalar.
        views: View number, int64 scalar.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    samples: torch.Tensor
    views: torch.Tensor


class ViewDataset(Dataset[View]):
    """The training images of a cache, each with the view of one epoch and the teacher's answer to it.

    For torch's DataLoader with any sampler and any number of workers. ``dataset[7]`` is one view,
    ``dataset[[7, 3]]`` a batch rendered at once. What it gives depends on sample and epoch alone, so shuffling,
    workers and ranks change nothing; the pixels are those of a ``Loader``, bit for bit.

    Each process reads the epoch's slab for itself, whole and checked, when it is first asked in that epoch.
    A worker that was forked shares the images with its parent; one that was spawned opens them again.

    Attributes:
        classes: How many classes the targets have.
        num_views: How many epochs show different views; epoch e shows view index e % views.
    """

    def __init__(
        self, path: Path | str, *, temperature: float = 1.0, data: str | None = None, keep: Keep = "slab"
    ) -> None:
        """Open a cache and its training images.

        Args:
            path: A cache's directory.
            temperature: Of the teacher's probabilities.
            data: Read the images from this source instead of where they were at the dump.
            keep: What each process keeps in memory: the ``slab`` of its epoch, or ``all`` that it has read.

        Raises:
            CacheDamagedError: The cache is missing, incomplete or damaged.
            MismatchError: The images are not those that the teacher answered for.
            UsageError: The encoding is not faithful at that temperature.
        """
        self._arguments = Path(path).absolute(), temperature, data, keep
        # Shared with workers, also with those that stay from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._opened: _Opened | None = None
        self.classes, self.num_views = self._here().classes, self._here().num_views

    def set_epoch(self, epoch: int) -> None:
        """Show the views of an epoch, from 0 on; call it before iterating, in the process that iterates.

        Raises:
            UsageError: The epoch is negative.
        """
        if epoch < 0:
            raise UsageError(f"there is no epoch {epoch}", hint="epochs are counted from 0")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self._here().labels)

    def __getitem__(self, index: int | Sequence[int]) -> View:
        """Return the view of one sample, or the views of several as one batch.

        Raises:
            IndexError: There is no such sample.
        """
        if isinstance(index, int | np.integer):
            return View(*(field[0] for field in self._batch([int(index)])))
        return self._batch(index)

    def __getitems__(self, indices: Sequence[int]) -> list[View]:
        """Return the views of samples that were rendered together; a DataLoader asks for its batches so."""
        return [View(*row) for row in zip(*self._batch(indices), strict=True)]

    def _batch(self, indices: Sequence[int]) -> View:
        opened, samples = self._here(), torch.as_tensor(indices, dtype=torch.int64)
        if len(samples) and not 0 <= int(samples.min()) <= int(samples.max()) < len(opened.labels):
            # Not one of ours: Python's own loops end a sequence by it.
            raise IndexError(f"samples are 0 to {len(opened.labels) - 1}, not {samples.tolist()}")
        return opened.batch(samples, int(self._epoch))

    def _here(self) -> _Opened:
        """Return what this process has open; a fork begins with what its parent has."""
        if self._opened is None:
            self._opened = _Opened(*self._arguments)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Travel as a path: a process that was spawned opens cache and images for itself."""
        return {**self.__dict__, "_opened": None}


class _Opened:
    """A cache and its images, open in one process, and the view index that was asked for last."""

    def __init__(self, path: Path, temperature: float, data: str | None, keep: Keep) -> None:
        cache = open_cache(path)
        self.num_views, self.classes = cache.manifest.num_views, cache.manifest.classes
        kept: Kept = "device" if keep == "all" else "none"
        self._targets = CacheTargets(cache, temperature=temperature, keep=kept)
        images = DataSpec.from_dict(cache.manifest.dataset["spec"]).moved(data).open("train")
        self._renderer = cached_renderer(cache, images)
        self.labels = torch.tensor(images.labels)
        self._view_index, self._views = -1, self.labels[:0]

    def batch(self, samples: torch.Tensor, epoch: int) -> View:
        """Return the views that samples, int64 (B,), show in an epoch."""
        if (view_index := epoch % self.num_views) != self._view_index:
            # Nothing is read ahead: a fork has none of its parent's threads, so there must be none.
            self._targets.begin(view_index, following=view_index)
            everyone = np.arange(len(self.labels))
            self._views = torch.from_numpy(self._renderer.space.view_ids(everyone, view_index))
            self._view_index = view_index
        views = self._views.index_select(0, samples)
        images = self._renderer.render(samples, views)
        labels = self.labels.index_select(0, samples)
        return View(images, labels, self._targets.probabilities(samples, images), samples, views)
