"""Checks of a loader that hold for every placement of images and targets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from bancache.cache.reader import Cache, EncodedView
from bancache.loader import Batch, Loader
from bancache.losses import MixedLabels
from bancache.losses.weights import Labels


class CountingCache:
    """A cache that counts how many of the views it read are still in memory."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self.held, self.most_held = cache, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def read_view(self, view_index: int) -> EncodedView:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        encoded = {name: part.copy() for name, part in self._cache.read_view(view_index).items()}
        weakref.finalize(next(iter(encoded.values())), self._let_go)
        return encoded

    def _let_go(self) -> None:
        self.held -= 1


def require_same_batches(one: Loader, other: Loader, epochs: tuple[int, ...]) -> None:
    """Images, labels, targets, samples and views are equal bit for bit, in any order of epochs."""
    for epoch in epochs:
        for batch, expected in paired(one.epoch(epoch), other.epoch(epoch)):
            require_equal(batch, expected)


def require_shares(whole: Loader, shares: list[Loader], epoch: int) -> None:
    """The shares of all ranks are of one size, and in order the batch of a single process."""
    for expected, *parts in zip(whole.epoch(epoch), *(share.epoch(epoch) for share in shares), strict=True):
        first = 0
        assert len({len(part.samples) for part in parts}) == 1
        for part in parts:
            rows = slice(first, first + len(part.samples))
            targets = None if expected.targets is None else expected.targets[rows]
            samples, views = expected.samples[rows], expected.views[rows]
            labels = of_rows(expected.labels, rows)
            require_equal(part, Batch(expected.images[rows], labels, targets, samples, views))
            first = rows.stop
        assert first == len(expected.samples)


def require_same_tail(one: Loader, other: Loader, epoch: int, start: int) -> None:
    """An epoch can start at any step."""
    whole = list(other.epoch(epoch))
    for batch, expected in paired(one.epoch(epoch, start=start), iter(whole[start:])):
        require_equal(batch, expected)


def require_kept_batches_stay(loader: Loader) -> None:
    """A batch that was yielded does not change when later ones are."""
    batches = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
    again = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
    for batch, expected in paired(iter(batches), iter(again)):
        require_equal(batch, expected)


def most_views_held(open_loader: Callable[[Cache], Loader], cache: Cache) -> int:
    """Return how many views were in memory at once, at most, while each was shown twice."""
    counting = CountingCache(cache)
    loader = open_loader(counting)  # type: ignore[arg-type]
    for epoch in range(2 * cache.manifest.num_views):
        for _ in loader.epoch(epoch):
            pass
    return counting.most_held


def of_rows(labels: Labels, rows: slice) -> Labels:
    if isinstance(labels, MixedLabels):
        return MixedLabels(*(part[rows] for part in labels))
    return labels[rows]


def require_equal(batch: Batch, expected: Batch) -> None:
    for one, other in zip(parts_of(batch.labels), parts_of(expected.labels), strict=True):
        assert torch.equal(one.cpu(), other.cpu()), "labels"
    for name in ("images", "targets"):
        one, other = getattr(batch, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one.cpu(), other.cpu()), name
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.samples, expected.samples)
    np.testing.assert_array_equal(batch.views, expected.views)


def parts_of(labels: Labels) -> tuple[torch.Tensor, ...]:
    """Return the label; or both labels and the share of the first."""
    return labels if isinstance(labels, MixedLabels) else (labels,)


def paired(one: Iterator[Batch], other: Iterator[Batch]) -> Iterator[tuple[Batch, Batch]]:
    return zip(one, other, strict=True)
