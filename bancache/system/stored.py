"""StoredImages: pictures that stay where they lie; each is read and decoded when it is asked for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bancache.system.ragged import Images, RaggedImages, span_of

_SKETCHED = 4096  # bytes
_PART = 1 << 16  # of a million numbers, so that computing with them takes little memory


class StoredImages(ABC):
    """Pictures in a file, a folder or an object store, whose sizes are known and whose pixels are not in memory.

    Threads may read at once.

    Attributes:
        heights: int32 ``(N,)``, rows of pixels.
        widths: int32 ``(N,)``, columns of pixels.
        channels: Bytes of a pixel, the same for all.
        sketches: uint64 ``(N,)``, ``sketch`` of each picture; None if no pass has computed them.
    """

    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    channels: int
    sketches: NDArray[np.uint64] | None = None

    @abstractmethod
    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of one picture, ``(H, W, C)``.

        Raises:
            DataError: It cannot be read, is damaged, or has another size than before; the message names it.
        """

    @abstractmethod
    def first(self, n: int) -> StoredImages:
        """Return the first ``n`` pictures."""

    def some(self, samples: NDArray[np.int64]) -> StoredImages:
        """Return the pictures with these numbers, int64 ``(M,)``, in this order."""
        return SomeImages(self, samples)

    @abstractmethod
    def close(self) -> None:
        """Close what is open; reading opens it again."""

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def nbytes(self) -> int:
        """Bytes that all pixels would take in memory."""
        parts = (slice(start, start + _PART) for start in range(0, len(self), _PART))
        areas = (np.multiply(self.heights[part], self.widths[part], dtype=np.int64) for part in parts)
        return sum(int(area.sum()) for area in areas) * self.channels

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels if all pictures have the same, else None."""
        height, width = int(self.heights[0]), int(self.widths[0])
        same = (self.heights == height).all() and (self.widths == width).all()
        return (height, width) if same else None

    @property
    def span(self) -> str:
        """The sizes of the smallest and the largest picture as text."""
        return span_of(self.heights, self.widths)

    def take(self, samples: Iterable[int]) -> RaggedImages:
        """Return some pictures in memory, in the order of ``samples``."""
        pictures = [self.read(int(sample)) for sample in samples]
        flat = np.concatenate([np.empty(0, np.uint8), *(picture.reshape(-1) for picture in pictures)])
        heights, widths = (
            np.array([picture.shape[axis] for picture in pictures], np.int32) for axis in (0, 1)
        )
        return RaggedImages(flat, heights, widths, self.channels)


class SomeImages(StoredImages):
    """Some of the pictures of another object, which stay where they lie."""

    def __init__(self, images: StoredImages, samples: NDArray[np.int64]) -> None:
        self._images, self._samples, self.channels = images, samples, images.channels
        self.heights, self.widths = images.heights[samples], images.widths[samples]
        self.sketches = None if images.sketches is None else images.sketches[samples]

    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of one picture, ``(H, W, C)``."""
        return self._images.read(int(self._samples[sample]))

    def first(self, n: int) -> StoredImages:
        """Return the first ``n`` pictures."""
        return SomeImages(self._images, self._samples[:n])

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        self._images.close()


AnyImages = Images | StoredImages


def sketch(image: NDArray[np.uint8]) -> int:
    """Return a hash of a picture, 64 bits: of all pixels of a small one, of some thousands of a large one."""
    seen = image.reshape(-1)[:: 1 + image.size // _SKETCHED]
    digest = hashlib.blake2b(repr(image.shape).encode() + seen.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
