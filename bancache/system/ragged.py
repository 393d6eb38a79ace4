"""Pictures that differ in size, in one run of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError

# The hint where one size is needed.
ONE_SIZE = "use --views rrc-flip, or resize them: --image-size 64"


@dataclass(frozen=True, eq=False)
class RaggedImages:
    """Pictures of different sizes; indexing by one number gives one picture ``(H, W, C)``, without copying.

    A slice shares the pixels, an array of numbers copies those of the pictures that it names; both give the same type.

    Attributes:
        flat: uint8, all pixels: picture after picture, in each row after row. It may be mapped from a file.
        heights: int32 ``(N,)``, rows of pixels.
        widths: int32 ``(N,)``, columns of pixels.
        channels: Bytes of a pixel.
        offsets: int64 ``(N,)``, where each picture begins in ``flat``.

    Raises:
        DataError: The sizes are not those of so many pixels.
    """

    flat: NDArray[np.uint8] = field(repr=False)
    heights: NDArray[np.int32] = field(repr=False)
    widths: NDArray[np.int32] = field(repr=False)
    channels: int
    offsets: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, dtype in (("flat", None), ("heights", np.int32), ("widths", np.int32)):
            view = np.ascontiguousarray(getattr(self, name), dtype).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        sizes = self.heights.astype(np.int64) * self.widths * self.channels
        ends = np.cumsum(sizes)
        object.__setattr__(self, "offsets", ends - sizes)
        said = int(ends[-1]) if len(ends) else 0
        if (
            self.flat.dtype != np.uint8
            or self.flat.shape != (said,)
            or min(sizes.min(initial=1), self.heights.min(initial=1)) < 1
        ):
            raise DataError(
                f"{len(sizes):,} pictures should have {said:,} bytes of pixels, not {self.flat.dtype} {self.flat.shape}",
                hint="each has height x width x channels, and none is empty",
            )

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any]) -> RaggedImages: ...
    def __getitem__(self, index: int | np.integer[Any] | slice | NDArray[Any]) -> Any:
        if isinstance(index, int | np.integer):
            shape = self.heights[index], self.widths[index], self.channels
            return self.flat[self._bytes(index)].reshape(shape)
        chosen = np.arange(len(self))[index]
        if isinstance(index, slice) and len(chosen) and index.step in (None, 1):
            flat = self.flat[self._bytes(chosen[0]).start : self._bytes(chosen[-1]).stop]
        else:
            flat = np.concatenate([self.flat[:0], *(self.flat[self._bytes(each)] for each in chosen)])
        return RaggedImages(flat, self.heights[chosen], self.widths[chosen], self.channels)

    def _bytes(self, index: int | np.integer[Any]) -> slice:
        start = int(self.offsets[index])
        return slice(start, start + int(self.heights[index]) * int(self.widths[index]) * self.channels)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return self.flat.nbytes

    @property
    def span(self) -> str:
        """The sizes of the smallest and the largest picture as text, width first: ``from 68x100 to 2400x1800``."""
        return span_of(self.heights, self.widths)


def span_of(heights: NDArray[np.int32], widths: NDArray[np.int32]) -> str:
    """Return the sizes of the smallest and the largest picture as text, width first.

    >>> span_of(np.array([100, 1800], np.int32), np.array([68, 2400], np.int32))
    'from 68x100 to 2400x1800'
    >>> span_of(np.array([24, 20], np.int32), np.array([20, 24], np.int32))
    'from 24x20 to 20x24'
    """
    # By area, and turned pictures, which have the same, by their height.
    order = np.lexsort((heights, heights.astype(np.int64) * widths))
    low, high = (f"{widths[i]}x{heights[i]}" for i in (order[0], order[-1]))
    return f"from {low} to {high}"


# uint8 (N, H, W, C) where all pictures have one size.
Images = NDArray[np.uint8] | RaggedImages


def as_ragged(images: Images) -> RaggedImages:
    """Return images of either kind with a size for each; C-contiguous ones are not copied.

    >>> as_ragged(np.zeros((2, 4, 6, 3), np.uint8)).offsets.tolist()
    [0, 72]
    """
    if isinstance(images, RaggedImages):
        return images
    count, height, width, channels = images.shape
    heights, widths = (np.full(count, side, np.int32) for side in (height, width))
    return RaggedImages(images.reshape(-1), heights, widths, channels)
