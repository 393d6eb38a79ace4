"""Any view of pictures that are not in memory: threads read and decode the pictures of a batch, ahead of their use.

On a CPU the threads also resample, so no picture stays in memory longer than a few views take to be made. On a GPU a batch's
pictures are copied from page-locked memory, and the kernel resamples them there. Views have the bits that they have from
pictures in memory.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.system.read_ahead import in_order, num_threads
from bancache.system.stored import StoredImages
from bancache.views.lattice import Lattice
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.pictures import Pictures, Shapes
from bancache.views.record_renderer import RecordRenderer, hash_of
from bancache.views.renderer import GOLDEN_IMAGES, Integers, Renderer
from bancache.views.space import Sizes

# Batches that are complete, or nearly, before they are asked for; what they take is the memory of a stream.
AHEAD = 2
# Views that a thread makes at a time: few, so that all threads work on the next batch, and fewer of large pictures, which it
# holds meanwhile.
_PIECE, _HELD_BYTES = 16, 1 << 26
_NOTHING = np.empty(0, np.uint8)

Records = NDArray[np.int32]


@dataclass(eq=False)
class _Batch:
    """Views that are made, and what they are made from; ``out`` on a CPU, ``flat`` for a GPU.

    Attributes:
        samples: int64 (B,).
        records: int32 (B, columns).
        used: The samples whose pictures are needed, int64 (U,), in order.
        out: Normalized views, float32 (B, H, W, C).
        flat: The pixels of ``used``, uint8.
        ends: Where the picture of each of ``used`` ends there, int64 (U,).
    """

    samples: Integers
    records: Records
    used: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    out: torch.Tensor | None = None
    flat: torch.Tensor | None = None
    ends: Integers = field(default_factory=lambda: np.empty(0, np.int64))


class StreamedRenderer(Renderer):
    """Renders views of stored pictures; ``batches`` works ahead in threads, all else in the caller's thread.

    A sequence of batches keeps the pictures' file open, and closes it with the last one.
    """

    streams = True

    def __init__(self, images: StoredImages, shapes: Shapes, inner: RecordRenderer) -> None:
        """Read from ``images``, and make views as ``inner`` makes those of its own pictures."""
        self.space, self.device, self.size = inner.space, inner.device, inner.size
        self.normalization, self.images = inner.normalization, images
        self._shapes, self._inner = shapes, inner
        self._scratch = threading.local()
        self._piece = max(1, min(_PIECE, _HELD_BYTES // self._mean_bytes))
        # Kernels want all pictures of a batch at once.
        self._at_once = inner.device.type != "cpu"
        self._crops = isinstance(inner.space, Lattice) and shapes.size == inner.size
        if self._crops:  # refuses what the pictures are too small for
            self._crops_of(np.zeros((1, *self.size, shapes.channels), np.uint8))

    def rows(self, samples: Integers, view_ids: Integers) -> Records:
        """Return the records of views, int32 (B, columns)."""
        return self.space.records(samples, view_ids, self._shapes.sizes)

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        inner, *arguments = self._over(samples, rows)
        return inner.pixels(*arguments)

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, (B, C, H, W) in channels_last memory."""
        inner, *arguments = self._over(samples, rows)
        return inner.render(*arguments)

    def in_dtype(self, dtype: torch.dtype) -> StreamedRenderer:
        """Return a renderer of the same pictures to another dtype."""
        other = copy.copy(self)
        other._inner = self._inner.in_dtype(dtype)
        return other

    def golden(self, num_views: int) -> str:
        """Return the hash that the views have from pictures in memory."""
        if self._crops:
            first = np.arange(min(GOLDEN_IMAGES, len(self.images)))
            pixels = self._taken(first).flat.reshape(-1, *self.size, self._shapes.channels)
            return self._crops_of(pixels).golden(num_views)
        return hash_of(self.pixels(*self.golden_views(num_views, len(self.images))))

    def batches(
        self, samples: Integers, view_ids: Integers, size: int
    ) -> Generator[tuple[torch.Tensor, torch.Tensor, torch.Tensor], None, None]:
        """Yield samples, rows and normalized views, ``size`` of them at a time, in order; threads work ahead.

        Raises:
            DataError: A picture cannot be read; the batches before it were yielded.
        """
        pieces = -(-min(size, len(samples)) // self._piece)
        with (
            _open(self.images),
            closing(in_order(self._jobs(samples, view_ids, size), ahead=AHEAD * pieces)) as done,
        ):
            for batch in done:
                if batch is not None:
                    yield self._finished(batch)

    def describe(self, batch_size: int) -> str:
        """Return a line about how batches are read, with the memory that they take."""
        views = AHEAD * batch_size * self.size[0] * self.size[1] * self._shapes.channels * 4
        pictures = (
            2 * self._mean_bytes * (AHEAD * batch_size if self._at_once else num_threads() * self._piece)
        )
        return (
            f"images: {len(self.images):,} pictures stay where they lie; {num_threads()} threads read {AHEAD} batches "
            f"ahead, about {(views + pictures) / 1e6:,.0f} MB"
        )

    @property
    def _mean_bytes(self) -> int:
        return self.images.nbytes // len(self.images)

    def _jobs(
        self, samples: Integers, view_ids: Integers, size: int
    ) -> Iterator[Callable[[], _Batch | None]]:
        """Yield the pieces of work of all batches; the last one of a batch returns it."""
        for start in range(0, len(samples), size):
            part = slice(start, start + size)
            numbers = samples[part]
            batch = _Batch(numbers, self.rows(numbers, view_ids[part]))
            work, count = self._views, len(numbers)
            if self._at_once:
                self._prepare(batch)
                work, count = self._pictures, len(batch.used)
            else:
                batch.out = self._inner.buffer(count)
            for first in range(0, count, self._piece):
                last = first + self._piece >= count
                yield partial(work, batch, slice(first, first + self._piece), batch if last else None)

    def _views(self, batch: _Batch, part: slice, result: _Batch | None) -> _Batch | None:
        """Make some views of a batch, from their pictures and those of their partners."""
        assert batch.out is not None
        used, inside, records = self._renumbered(batch.samples[part], batch.records[part])
        inner = self._inner.over(self._taken(used))
        inner.fill(torch.from_numpy(inside), torch.from_numpy(records), batch.out[part], threads=1)
        return result

    def _pictures(self, batch: _Batch, part: slice, result: _Batch | None) -> _Batch | None:
        """Read some pictures of a batch into its page-locked memory."""
        assert batch.flat is not None
        self._copy(batch.used[part], batch.ends[part], batch.flat.numpy())
        return result

    def _finished(self, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        samples, rows = torch.from_numpy(batch.samples), torch.from_numpy(batch.records)
        if batch.out is not None:
            return samples, rows, batch.out.permute(0, 3, 1, 2)
        inner, *arguments = self._placed(batch)
        return self._moved(samples), self._moved(rows), inner.render(*arguments)

    def _over(
        self, samples: torch.Tensor, rows: torch.Tensor
    ) -> tuple[RecordRenderer, torch.Tensor, torch.Tensor]:
        """Return a renderer of the pictures of some views, and the views' samples and records there."""
        batch = _Batch(samples.cpu().numpy(), rows.cpu().numpy())
        if self._at_once:
            self._prepare(batch)
            self._pictures(batch, slice(None), None)
            return self._placed(batch)
        used, inside, records = self._renumbered(batch.samples, batch.records)
        inner = self._inner.over(self._taken(used))
        return inner, torch.from_numpy(inside), torch.from_numpy(records)

    def _prepare(self, batch: _Batch) -> None:
        """Take page-locked memory for the pictures of a batch."""
        batch.used, _, _ = self._renumbered(batch.samples, batch.records)
        heights, widths = self._sides(batch.used)
        batch.ends = np.cumsum(heights * widths * self._shapes.channels)
        batch.flat = torch.empty(
            int(batch.ends[-1]), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )

    def _placed(self, batch: _Batch) -> tuple[RecordRenderer, torch.Tensor, torch.Tensor]:
        """Copy what a batch is made from to the device; kernels that are asked for now wait there for it.

        torch gives page-locked memory to others only when the copy from it is done.
        """
        assert batch.flat is not None
        used, inside, records = self._renumbered(batch.samples, batch.records)
        heights, widths = self._sides(used)
        starts = batch.ends - heights * widths * self._shapes.channels
        tensors = tuple(self._moved(torch.from_numpy(part)) for part in (starts, heights, widths))
        inner = self._inner.over(self._inner.pictures, (self._moved(batch.flat), *tensors))
        return inner, self._moved(torch.from_numpy(inside)), self._moved(torch.from_numpy(records))

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _renumbered(self, samples: Integers, records: Records) -> tuple[Integers, Integers, Records]:
        """Return the samples whose pictures are needed, in order, and the samples and the records with places among them."""
        layout = self.space.layout
        if not layout.mixed:
            used, inside = np.unique(samples, return_inverse=True)
            return used, inside, records
        both = np.concatenate([samples, records[:, layout.partner].astype(np.int64)])
        used, inside = np.unique(both, return_inverse=True)
        records = records.copy()
        records[:, layout.partner] = inside[len(samples) :]
        return used, inside[: len(samples)], records

    def _taken(self, used: Integers) -> Pictures:
        """Return pictures in memory that this thread's next call uses again: new memory costs as much as reading."""
        heights, widths = self._sides(used)
        ends = np.cumsum(heights * widths * self._shapes.channels)
        size = int(ends[-1]) if len(ends) else 0
        flat: NDArray[np.uint8] = getattr(self._scratch, "flat", _NOTHING)
        if len(flat) < size:
            flat = self._scratch.flat = np.empty(size, np.uint8)
        self._copy(used, ends, flat)
        starts = ends - heights * widths * self._shapes.channels
        return Pictures(Sizes(heights, widths), self._shapes.channels, None, "", flat[:size], starts)

    def _copy(self, used: Integers, ends: Integers, flat: NDArray[np.uint8]) -> None:
        """Read pictures to where they end in ``flat``."""
        sizes, channels = self._shapes.sizes, self._shapes.channels
        for sample, end in zip(used.tolist(), ends.tolist(), strict=True):
            picture = self.images.read(sample)
            if picture.shape != (sizes.heights[sample], sizes.widths[sample], channels):
                raise DataError(
                    f"sample {sample} has another size than before", hint="the source changed: start again"
                )
            flat[end - picture.size : end] = picture.reshape(-1)

    def _sides(self, used: Integers) -> tuple[Integers, Integers]:
        sizes = self._shapes.sizes
        return sizes.heights[used].astype(np.int64), sizes.widths[used].astype(np.int64)

    def _crops_of(self, images: NDArray[np.uint8]) -> LatticeRenderer:
        assert isinstance(self.space, Lattice)
        return LatticeRenderer(images, self.space, self.normalization)


_USERS: weakref.WeakKeyDictionary[StoredImages, int] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def _open(images: StoredImages) -> Iterator[None]:
    """Close pictures when the last of those who read ahead has ended."""
    with _LOCK:
        _USERS[images] = _USERS.get(images, 0) + 1
    try:
        yield
    finally:
        with _LOCK:
            _USERS[images] -= 1
            if not _USERS[images]:
                images.close()
