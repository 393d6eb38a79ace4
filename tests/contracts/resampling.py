"""Random boxes of random pictures, and resampling straight from its specification, in whole numbers, with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from contracts.interpreting import Arrays
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Boxes:
    """Boxes of pictures of different sizes, shown at one size; arrays as ``resample`` takes them."""

    pictures: list[Pixels]
    boxes: NDArray[np.int32]
    flips: NDArray[np.int32]
    size: tuple[int, int]
    mode: Literal["reflect", "zero"]

    def arguments(self, device: str = "cpu") -> tuple[Any, ...]:
        """Return the arguments of ``resample``; other bytes lie before, between and after the pictures."""
        gap = np.full(5, 77, np.uint8)
        pieces = [gap] + [piece for picture in self.pictures for piece in (picture.ravel(), gap)]
        offsets = np.cumsum([0, *(piece.size for piece in pieces)])[1:-1:2]
        arrays = [
            np.concatenate(pieces),
            offsets,
            *(np.array([picture.shape[axis] for picture in self.pictures], np.int32) for axis in (0, 1)),
            self.boxes,
            self.flips,
        ]
        flat, *rest, boxes, flips = (torch.from_numpy(array).to(device) for array in arrays)
        return flat, *rest, self.pictures[0].shape[2], boxes, flips, self.size, self.mode

    def expected(self) -> Pixels:
        """Return the views, by the specification."""
        found = [
            view(picture, box, bool(flip), self.size, self.mode)
            for picture, box, flip in zip(self.pictures, self.boxes.tolist(), self.flips, strict=True)
        ]
        return np.stack(found)


def random_boxes(rng: np.random.Generator, count: int, longest: int, size: tuple[int, int]) -> Boxes:
    """Return boxes of 1 to ``longest`` pixels a side in pictures like that; most reach outside a little."""
    channels = int(rng.choice([1, 3]))
    sides = rng.integers(1, longest + 1, (count, 2))
    boxes = np.concatenate(
        [rng.integers(-longest // 2, longest, (count, 2)), rng.integers(1, longest + 1, (count, 2))], 1
    )
    # Every third is the whole picture or within it.
    whole = np.arange(count) % 3 == 0
    boxes[whole, :2] = np.arange(whole.sum())[:, None] % 3
    boxes[whole, 2:] = np.maximum(1, sides[whole] - boxes[whole, :2])
    pictures = [rng.integers(0, 256, (*side, channels), dtype=np.uint8) for side in sides]
    pictures[-1][:] = 255
    mode = "reflect" if rng.integers(2) else "zero"
    flips = rng.integers(0, 2, count, dtype=np.int32)
    return Boxes(pictures, boxes.astype(np.int32), flips, size, mode)  # type: ignore[arg-type]


@cache
def weights(length: int, size: int) -> NDArray[np.int64]:
    """Return the weight of every source pixel in every output pixel, (size, length)."""
    x, i = np.arange(size)[:, None], np.arange(length)
    exact = np.maximum(0, 2 * max(length, size) - np.abs((2 * i + 1) * size - (2 * x + 1) * length))
    total = exact.sum(axis=1, keepdims=True)
    table: NDArray[np.int64] = (2 * exact * 2**16 + total) // (2 * total)
    table[np.arange(size), exact.argmax(axis=1)] += 2**16 - table.sum(axis=1)
    return table


def view(picture: Pixels, box: list[int], flip: bool, size: tuple[int, int], mode: str) -> Pixels:
    """Return the view of one box."""
    edges = [
        (max(0, -start), max(0, start + length - side))
        for start, length, side in zip(box[:2], box[2:], picture.shape[:2], strict=True)
    ]
    padded = np.pad(picture, [*edges, (0, 0)], mode="reflect" if mode == "reflect" else "constant")
    top, left = max(0, box[0]), max(0, box[1])
    pixels = padded[top : top + box[2], left : left + box[3]].astype(np.int64)
    narrow = (np.einsum("xi,yic->yxc", weights(box[3], size[1]), pixels) + 2**15) >> 16
    shown = (np.einsum("yi,ixc->yxc", weights(box[2], size[0]), narrow) + 2**15) >> 16
    assert shown.min() >= 0
    assert shown.max() <= 255
    found: Pixels = (shown[:, ::-1] if flip else shown).astype(np.uint8)
    return found


def kernel_batches() -> list[Boxes]:
    """Return small batches, since the interpreter is slow."""
    rng = np.random.default_rng(7)
    sizes = [(9, 7), (8, 8), (6, 29), (33, 16)]
    return [random_boxes(rng, 8, 24, size) for size in sizes]


def run_kernel(given: Boxes, device: str) -> Pixels:
    """Return a batch by the Triton kernel."""
    from bancache.views.resample import most_taps
    from bancache.views.triton_resample import resample

    rows, columns = (most_taps(int(given.boxes[:, 2 + axis].max()), given.size[axis]) for axis in (0, 1))
    found: Pixels = resample(*given.arguments(device), most=(rows, columns)).cpu().numpy()
    return found


def run() -> Arrays:
    """Return what the interpreted kernel writes."""
    return {str(number): run_kernel(given, "cpu") for number, given in enumerate(kernel_batches())}
