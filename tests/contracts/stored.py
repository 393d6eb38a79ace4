"""Pictures that are not in memory, for tests: they count what is read, and one of them may be unreadable."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet, Known
from bancache.system.read_ahead import THREAD_NAME
from bancache.system.stored import StoredImages


class CountedImages(StoredImages):
    """Pictures of an array or of many sizes, each read on its own.

    Attributes:
        reads: How often each sample was read.
        broken: A sample that cannot be read, or None.
        opened: A descriptor that is open while pictures are read, or None.
    """

    def __init__(self, images: Any) -> None:
        self._images = images
        self.heights = np.array([len(image) for image in images], np.int32)
        self.widths = np.array([image.shape[1] for image in images], np.int32)
        self.channels = images[0].shape[2]
        self.reads: Counter[int] = Counter()
        self.broken: int | None = None
        self.opened: int | None = None
        self._lock = threading.Lock()

    def read(self, sample: int) -> NDArray[np.uint8]:
        with self._lock:
            self.reads[sample] += 1
            if self.opened is None:
                self.opened = os.open(os.devnull, os.O_RDONLY)
        if sample == self.broken:
            raise DataError(f"sample {sample} (cat/{sample}.jpg) cannot be decoded", hint="replace it")
        picture: NDArray[np.uint8] = self._images[sample]
        return picture

    def first(self, n: int) -> CountedImages:
        return CountedImages(self._images[:n])

    def close(self) -> None:
        with self._lock:
            if self.opened is not None:
                os.close(self.opened)
                self.opened = None


def stored(data: ImageSet, *, known: bool = True) -> tuple[ImageSet, CountedImages]:
    """Return a data set whose pictures are read one by one, with the facts of the one in memory if they are known."""
    images = CountedImages(data.images)
    facts = Known(data.fingerprint, data.statistics) if known else None
    return replace(data, images=images, known=facts), images


def reading_threads() -> list[str]:
    """Return the names of the threads that read ahead."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def descriptors() -> set[str]:
    """Return what this process has open; what nothing refers to any more is closed first."""
    gc.collect()
    return {link.name for link in Path("/proc/self/fd").iterdir()}
