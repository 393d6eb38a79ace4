"""How much memory a batch takes, and which batch fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bancache.errors import OutOfMemoryError
from bancache.system import memory
from bancache.system.peak_memory import peak_bytes
from bancache.system.progress import Progress
from bancache.system.wording import count

# Measured: the kernels of torch and the allocator took 1.02 to 1.27 times what the tensors took.
_OVERHEAD = 1.3
_SHARE = 0.8  # a default leaves some memory to others
_LEAST_BATCH = 2  # BatchNorm needs two values


@dataclass(frozen=True)
class Needs:
    """Bytes that a batch takes: ``fixed`` and, for each of its images, ``image``, of both together at least ``least``."""

    fixed: int
    image: int
    least: int = 0

    def of(self, batch_size: int) -> int:
        """Return the bytes for a batch of this size."""
        return max(self.fixed + batch_size * self.image, self.least)

    def fit(self, batch_size: int, samples: int, free: int, progress: Progress) -> int:
        """Return a default batch size, or less if that many of ``samples`` images do not fit; say so.

        It is halved until it fits most of ``free`` bytes or cannot be smaller.
        """
        fits = largest = min(batch_size, samples)
        while self.of(fits) > _SHARE * free and fits >= 2 * _LEAST_BATCH:
            fits //= 2
        if fits == largest:
            return batch_size
        progress.note(
            f"batch size {fits}: {count(largest, 'image')} at once would take about {_gigabytes(self.of(largest))}, "
            f"and {_gigabytes(free)} are free (--batch-size)"
        )
        return fits

    def require(self, batch_size: int, free: int, what: str) -> None:
        """Raise ``OutOfMemoryError`` if a batch does not fit ``free`` bytes; ``what`` names the work in it."""
        if self.of(batch_size) <= free:
            return
        most = (free - self.fixed) // max(1, self.image) if self.of(_LEAST_BATCH) <= free else 0
        smaller = f"use --batch-size {most} or less, or" if most else "use"
        raise OutOfMemoryError(
            f"{what} with --batch-size {batch_size} would take about {_gigabytes(self.of(batch_size))}, "
            f"and {_gigabytes(free)} are free",
            hint=f"{smaller} a smaller --image-size, another --model or, for a DenseNet, --checkpoint-activations",
        )


def measure(work: Callable[[int], object]) -> Needs:
    """Return what ``work`` needs for a batch, estimated from batches of two and three images."""
    two, three = (int(peak_bytes(partial(work, count)) * _OVERHEAD) for count in (2, 3))
    return Needs(max(0, 3 * two - 2 * three), max(0, three - two))


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of a device's memory this process may still use."""
    if device.type != "cuda":
        return memory.free_on_host()
    # What torch keeps of tensors that are gone, such as those of a model that was only measured, is free, too.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def total_bytes(device: torch.device) -> int:
    """Return how many bytes of memory a GPU has; of a CPU's, those that are free."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else memory.free_on_host()


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
