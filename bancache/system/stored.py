"""StoredImages: pictures that stay where they lie; each is read and decoded when it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bancache.system.ragged import RaggedImages


class StoredImages(ABC):
    """Pictures in a file, a folder or an object store, whose sizes are known and whose pixels are not in memory.

    Threads may read at once.

    Attributes:
        heights: int32 ``(N,)``, rows of pixels.
        widths: int32 ``(N,)``, columns of pixels.
        channels: Bytes of a pixel, the same for all.
    """

    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    channels: int

    @abstractmethod
    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of one picture, ``(H, W, C)``.

        Raises:
            DataError: It cannot be read, is damaged, or has another size than before; the message names it.
        """

    @abstractmethod
    def first(self, n: int) -> StoredImages:
        """Return the first ``n`` pictures."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open; reading opens it again."""

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def nbytes(self) -> int:
        """Bytes that all pixels would take in memory."""
        return int((self.heights.astype(np.int64) * self.widths).sum()) * self.channels

    def take(self, samples: Iterable[int]) -> RaggedImages:
        """Return some pictures in memory, in the order of ``samples``."""
        pictures = [self.read(int(sample)) for sample in samples]
        flat = np.concatenate([np.empty(0, np.uint8), *(picture.reshape(-1) for picture in pictures)])
        heights, widths = (
            np.array([picture.shape[axis] for picture in pictures], np.int32) for axis in (0, 1)
        )
        return RaggedImages(flat, heights, widths, self.channels)
