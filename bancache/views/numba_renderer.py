"""Views from their records by numba: the bytes of ``RecordRenderer``, a view at a time, so that all of it stays in the caches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import loop, sealed
from bancache.views.numba_operations import apply_one, erase_one, mix_one, normalize_one
from bancache.views.numba_resample import resample_one
from bancache.views.record import FLIP, LAMBDA
from bancache.views.record_renderer import RecordRenderer

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Records = NDArray[np.int32]


class NumbaRenderer(RecordRenderer):
    """Renders views from their records on a CPU, by torch's number of threads unless another is said."""

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        # As normalized ones, exactly: for views of bytes numba would compile everything again, for ten seconds.
        channels = self.pictures.channels
        out = torch.empty((len(samples), *self.size, channels))
        mean, scale = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self._write(samples, rows, mean, scale, out.numpy(), torch.get_num_threads())
        return out.to(torch.uint8)

    def fill(self, samples: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, *, threads: int) -> None:
        """Write normalized views to ``out``, float32 (B, H, W, C), by so many threads."""
        self._write(samples, rows, self._mean.numpy(), self._scale.numpy(), out.numpy(), threads)

    def _write(
        self,
        samples: torch.Tensor,
        rows: torch.Tensor,
        mean: Floats,
        scale: Floats,
        out: Floats,
        threads: int,
    ) -> None:
        pictures, layout = self.pictures, self.space.layout
        places = (
            sealed(pictures.flat),
            sealed(pictures.offsets),
            sealed(pictures.sizes.heights),
            sealed(pictures.sizes.widths),
        )
        numbers, records = samples.numpy(), np.ascontiguousarray(rows.numpy(), np.int32)
        threads = max(1, min(threads, len(numbers)))

        def part(thread: int) -> None:
            which = slice(thread * len(numbers) // threads, (thread + 1) * len(numbers) // threads)
            _views(
                *places,
                numbers[which],
                records[which],
                layout.slots,
                layout.mixed,
                self.space.mode == "reflect",
                mean,
                scale,
                out[which],
            )

        if threads == 1:
            part(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(part, range(threads)))


@loop
def _views(
    flat: Bytes,
    offsets: Integers,
    heights: Integers,
    widths: Integers,
    samples: Integers,
    records: Records,
    slots: int,
    mixed: bool,
    reflect: bool,
    mean: Floats,
    scale: Floats,
    out: Floats,
) -> None:
    """Write normalized views, float32 (B, H, W, C)."""
    shape = out.shape[1:]
    view, partner, scratch = np.empty(shape, np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    own = _erased(slots) + 5
    for at in range(len(samples)):
        sample, record = samples[at], records[at]
        if slots == 0 and not mixed and record[_erased(slots) + 2] == 0:
            resample_one(
                flat, offsets[sample], heights[sample], widths[sample], record, reflect, mean, scale, out[at]
            )
            continue
        _own(
            flat,
            offsets[sample],
            heights[sample],
            widths[sample],
            record[:own],
            slots,
            reflect,
            scratch,
            view,
        )
        if mixed and record[own] != LAMBDA:  # else nothing of the partner is seen
            share, top, left, height, width, other = (
                record[own],
                record[own + 1],
                record[own + 2],
                record[own + 3],
                record[own + 4],
                record[own + 5],
            )
            rest = record[own + 6 :]
            _own(flat, offsets[other], heights[other], widths[other], rest, slots, reflect, scratch, partner)
            mix_one(view, partner, share, top, left, height, width)
        normalize_one(view, mean, scale, out[at])


@loop
def _own(
    flat: Bytes,
    offset: int,
    height: int,
    width: int,
    record: NDArray[np.int32],
    slots: int,
    reflect: bool,
    scratch: Bytes,
    view: Bytes,
) -> None:
    """Write a view before it is mixed, from the own part of its record."""
    zeros, ones = np.zeros(view.shape[2], np.float32), np.ones(view.shape[2], np.float32)
    resample_one(flat, offset, height, width, record, reflect, zeros, ones, view)
    for slot in range(slots):
        apply_one(view, scratch, record[FLIP + 1 + 2 * slot], record[FLIP + 2 + 2 * slot])
    first = _erased(slots)
    if record[first + 2] > 0:
        erase_one(
            view, record[first], record[first + 1], record[first + 2], record[first + 3], record[first + 4]
        )


@loop
def _erased(slots: int) -> int:
    """Return the first column of the erased box, as ``Layout.erased``."""
    return FLIP + 1 + 2 * slots
