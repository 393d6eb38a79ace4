"""Loader: the batches of any epoch, from any step on, as a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.encodings.changes import UNCHANGED
from bancache.errors import UsageError
from bancache.loader.batch import Batch
from bancache.loader.epoch_sampler import Addresses, EpochSampler
from bancache.loader.labels import labels_of, moved
from bancache.loader.lookahead import Lookahead
from bancache.loader.placement import Placement
from bancache.loader.targets import CodedTargets, Targets
from bancache.losses.weights import Codes
from bancache.system.buffers import tensor_of
from bancache.system.ranks import ALONE, Rank
from bancache.system.wording import count
from bancache.views.model_input import Normalization
from bancache.views.renderer import Renderer

_UNKNOWN = np.empty(0, np.int64)
Shown = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LoaderOptions:
    """How a loader makes its batches, and where.

    Attributes:
        batch_size: Views per step, over all processes; a smaller data set is one batch.
        seed: Decides the order of every epoch.
        temperature: T of the teacher's probabilities.
        targets: How they are changed when they are read, such as ``class-mean``.
        targets_seed: Decides what ``permute-rest`` and ``shuffle-in-class`` draw.
        device: Where batches appear.
        placement: Where images and targets are kept; by default where they fit.
        dtype: Of the images, where a kernel renders them; torch renders float32.
        decode: Whether batches have probabilities; else they have codes, if the encoding has codes.
        shuffle_block: Samples that are read as one run; 0 for any order. See ``EpochSampler``.
        rank: This process among those that share every batch: the shares, in the order of the ranks, are the batch
            that a single process gets.
        keep_last: Whether the samples that remain after an epoch's last full batch are one smaller batch more.

    Raises:
        UsageError: The batch size is not positive, or the seed is negative or has more than 64 bits.
    """

    batch_size: int = 128
    seed: int = 0
    temperature: float = 1.0
    targets: str = UNCHANGED
    targets_seed: int = 0
    device: torch.device | str = "cpu"
    placement: Placement = "auto"
    dtype: torch.dtype = torch.float32
    decode: bool = True
    shuffle_block: int = 0
    rank: Rank = ALONE
    keep_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batches of {self.batch_size} images", hint="give a batch_size of 1 or more")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"seed {self.seed}", hint="give a seed of 0 to 2^64 - 1")


class Loader:
    """Renders the batches of every epoch, each with labels and soft targets.

    ``for batch in loader`` yields one epoch, and the next loop yields the next epoch: 0, 1, 2, … (also if a loop ends
    early). ``loader.epoch(e)`` yields any epoch and counts nothing. ``len(loader)`` is the number of batches of an epoch.

    Two loaders with the same options give the same bits. Epoch e shows each sample's view at view index
    e % num_views; which view that is does not depend on the sample's neighbors in the batch.

    Attributes:
        sampler: Decides the order and the views of every epoch.
        targets: The source of soft targets, or None.
        steps: Batches per epoch.
        batch_size: Views per step, over all processes.
        samples: Samples that an epoch shows.
        device: Where batches appear.
    """

    def __init__(
        self,
        renderer: Renderer,
        labels: NDArray[np.int64],
        num_views: int,
        options: LoaderOptions,
        *,
        targets: Targets | None = None,
    ) -> None:
        """Combine images, labels and targets.

        Args:
            renderer: The images, in the memory of the device that makes the batches, or where they are read from.
            labels: int64 (N,).
            num_views: How many views to show in turn.
            options: Batch size, seed, device, decoding and rank are used here.
            targets: The teacher's targets; None to train on labels alone.

        Raises:
            UsageError: A batch cannot be shared evenly, or the last one holds one sample.
        """
        self.sampler = EpochSampler(len(labels), num_views, options.seed, options.shuffle_block)
        self.targets, self.device = targets, torch.device(options.device)
        self._coded = targets if isinstance(targets, CodedTargets) else None
        self.steps = self.sampler.steps(options.batch_size, keep_last=options.keep_last)
        self.batch_size, self._rank = min(options.batch_size, len(labels)), options.rank
        self.samples = min(self.steps * self.batch_size, len(labels))
        _require_shares(self.batch_size, self.samples % self.batch_size, options.rank.count)
        self._renderer, self._decode = renderer, options.decode
        self._labels = tensor_of(labels).to(renderer.device)
        self._addresses = Lookahead(self._addresses_of, name="addresses")
        self._next_epoch = 0
        self._epoch = -1

    @property
    def normalization(self) -> Normalization:
        """Mean and std of the images, one number per channel, in 0..255."""
        return self._renderer.normalization

    @property
    def streams(self) -> bool:
        """Whether pictures are not in memory: threads read them ahead, until the iterator of an epoch ends or is closed."""
        return self._renderer.streams

    @property
    def in_place(self) -> bool:
        """Whether batches are made on the device where they appear, so that a CUDA graph can make them."""
        return self.device == self._renderer.device

    def golden(self) -> str:
        """Return a hash of a few rendered views; a change shows that a library renders other pixels."""
        return self._renderer.golden(self.sampler.num_views)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch, starting with epoch 0."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        return self.epoch(epoch)

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, or this process's share of each, from step ``start`` on."""
        if start < 0:
            raise UsageError(f"there is no step {start}", hint="steps are counted from 0")
        addresses = self.begin(epoch)
        with closing(self._shown(addresses, start)) as shown:
            for step, (numbers, rows, images) in enumerate(shown, start):
                if self._epoch != epoch:  # another iterator began its own epoch
                    self._select_view(epoch)
                part = self._part(step)
                batch = self._batch(numbers, rows, images)
                yield replace(batch, samples=addresses.samples[part], views=addresses.views[part].copy())

    def _shown(self, addresses: Addresses, start: int) -> Generator[Shown, None, None]:
        """Yield samples, rows and images of this process's share of each batch from a step on."""
        if self.streams:
            samples, views = (self._own(numbers, start) for numbers in (addresses.samples, addresses.views))
            yield from self._renderer.batches(samples, views, self.batch_size // self._rank.count)
            return
        uploaded = None
        if addresses.rows is not None:
            uploaded = tuple(
                torch.from_numpy(part).to(self._renderer.device)
                for part in (addresses.samples, addresses.rows)
            )
        for part in map(self._part, range(start, self.steps)):
            if uploaded is None:
                numbers, rows = self._renderer.to_device(addresses.samples[part], addresses.views[part])
            else:
                numbers, rows = uploaded[0][part], uploaded[1][part]
            yield numbers, rows, self._renderer.render(numbers, rows)

    def _own(self, numbers: NDArray[np.int64], start: int) -> NDArray[np.int64]:
        """Return this process's share of an epoch's numbers from a step on; all of a million are not copied."""
        if self._rank.count == 1:
            return numbers[start * self.batch_size : self.samples]
        parts = (numbers[self._part(step)] for step in range(start, self.steps))
        return np.concatenate([_UNKNOWN, *parts])

    def size(self, step: int) -> int:
        """Return the number of views of a step, over all processes."""
        return min(self.batch_size, self.samples - step * self.batch_size)

    def _part(self, step: int) -> slice:
        """Return where an epoch's addresses have this process's share of a step."""
        share = self.size(step) // self._rank.count
        first = step * self.batch_size + self._rank.rank * share
        return slice(first, first + share)

    def begin(self, epoch: int) -> Addresses:
        """Make an epoch's targets current, and return its samples and views."""
        if epoch < 0:
            raise UsageError(f"there is no epoch {epoch}", hint="epochs are counted from 0")
        self._select_view(epoch)
        addresses = self._addresses.get(epoch)
        # A GPU would wait for the next epoch's addresses; a CPU gains nothing from a second thread.
        if self._renderer.device.type == "cuda":
            self._addresses.prepare(epoch + 1)
        return addresses

    def batch(self, samples: torch.Tensor, rows: torch.Tensor) -> Batch:
        """Return the batch of samples, int64 (B,), in the epoch that was begun; ``rows`` says which views they show.

        Both are on the renderer's device, the rows as its ``rows`` method returned them. No value is read back from the
        device, so a CUDA graph can capture it.
        """
        return self._batch(samples, rows, self._renderer.render(samples, rows))

    def _batch(self, samples: torch.Tensor, rows: torch.Tensor, images: torch.Tensor) -> Batch:
        images = images.to(self.device, non_blocking=True)
        labels = moved(labels_of(self._labels, samples, rows, self._renderer.space.layout), self.device)
        codes, targets, logits = self._codes(), None, None
        if codes is None and self.targets is not None:
            targets = self.targets.probabilities(samples, images).to(self.device, non_blocking=True)
        if self._coded is not None and (stored := self._coded.logits(samples)) is not None:
            logits = stored.to(self.device, non_blocking=True)
        return Batch(images, labels, targets, _UNKNOWN, _UNKNOWN, samples, codes, logits)

    def _select_view(self, epoch: int) -> None:
        if self.targets is not None:
            self.targets.begin(self.sampler.view_index(epoch), self.sampler.view_index(epoch + 1))
        self._epoch = epoch

    def _addresses_of(self, epoch: int) -> Addresses:
        found = self.sampler.addresses(epoch, self._renderer.space, self.samples)
        # A GPU would wait for a copy at every step.
        at_once = self._renderer.device.type == "cuda" and not self.streams
        return self.with_rows(found) if at_once else found

    def with_rows(self, addresses: Addresses) -> Addresses:
        """Return addresses with the rows of all their views."""
        if addresses.rows is not None:
            return addresses
        return replace(addresses, rows=self._renderer.rows(addresses.samples, addresses.views))

    def _codes(self) -> Codes | None:
        if self._decode or not self.in_place or self._coded is None:
            return None
        return self._coded.codes()


def _require_shares(batch: int, last: int, processes: int) -> None:
    """Refuse batches, full ones and a smaller last one (0: there is none), that processes cannot share evenly."""
    for views, way_out in ((batch, ""), (last, ", or leave out --keep-last")):
        if views % processes:
            raise UsageError(
                f"a batch of {views} cannot be shared evenly by {processes} processes",
                hint=f"give a --batch-size that {processes} divides{way_out}",
            )
    if last == processes and batch > processes:
        raise UsageError(
            f"the last batch of every epoch would be {count(last, 'image')}: BatchNorm needs two a process",
            hint="give another --batch-size, or leave out --keep-last",
        )
