"""Pictures: the pixels of a data set in one run of bytes, whatever the size of each picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bancache.views.space import Sizes


class OfManySizes(Protocol):
    """Pictures of different sizes, as a source has them."""

    @property
    def flat(self) -> NDArray[np.uint8]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def heights(self) -> NDArray[np.int32]: ...
    @property
    def widths(self) -> NDArray[np.int32]: ...
    @property
    def channels(self) -> int: ...


Images = NDArray[np.uint8] | OfManySizes


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pixels without padding, of one size or of many.

    Attributes:
        flat: The pixels of all pictures, uint8, each (H, W, C) in C order.
        offsets: Where each picture begins, int64 (N,).
        sizes: Heights and widths.
        channels: 1 for gray, 3 for color.
        size: Height and width if all pictures have the same, else None.
    """

    flat: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: Sizes
    channels: int
    size: tuple[int, int] | None

    @classmethod
    def of(cls, images: Images) -> Pictures:
        """Return the pictures of an array (N, H, W, C), or of a source of many sizes, without a copy."""
        if isinstance(images, np.ndarray):
            count, height, width, channels = images.shape
            heights, widths = np.full(count, height, np.int64), np.full(count, width, np.int64)
            offsets = np.arange(count, dtype=np.int64) * (height * width * channels)
            return cls(images.reshape(-1), offsets, Sizes(heights, widths), channels, (height, width))
        sizes = Sizes(images.heights.astype(np.int64), images.widths.astype(np.int64))
        return cls(images.flat, images.offsets, sizes, images.channels, None)

    def __len__(self) -> int:
        return len(self.offsets)
