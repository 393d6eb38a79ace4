"""Targets from a cache: one slab an epoch, the next read ahead by a thread, kept while there is room."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache, Slab
from bancache.encodings import from_config
from bancache.encodings.certify import require_faithful
from bancache.progress import Progress, Silent

_Tensors = dict[str, torch.Tensor]


class CacheTargets:
    """Answers from a cache, on a device.

    A slab (one slot of all samples) is read whole, checked against the manifest, and moved to the device
    once. All slabs stay there if they fit in ``budget_bytes``; otherwise one is kept and one read ahead, and
    memory does not grow with the number of views.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        budget_bytes: int = 2 << 30,
        progress: Progress | None = None,
    ) -> None:
        """Open the answers of a cache at a temperature.

        Args:
            cache: An open cache.
            temperature: T of the probabilities.
            device: Where slabs are kept and probabilities appear.
            budget_bytes: Most bytes of slabs to keep.
            progress: Is told where the slabs are kept.

        Raises:
            UsageError: The cache's encoding is not faithful at that temperature.
        """
        manifest = cache.manifest
        self._encoding = from_config(manifest.encoding, manifest.classes)
        require_faithful(self._encoding, manifest.classes, temperature, cache.summary.get("fidelity"))
        self._cache, self._temperature, self._device = cache, temperature, torch.device(device)
        self._kept: dict[int, _Tensors] = {}
        self._now: _Tensors = {}
        self._ahead: tuple[int, Future[Slab]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="bancache-slab")
        total = decoded_bytes(cache)
        # A map costs nothing to ask for again, and each one that is kept costs a descriptor.
        self._keep = total <= budget_bytes and not (cache.mapped and self._device.type == "cpu")
        where = (
            f"kept in memory of {self._device.type}" if self._keep else "read from disk, one slot an epoch"
        )
        (progress or Silent()).note(f"teacher's answers: {total / 1e6:,.1f} MB, {where}")

    def begin(self, slot: int, following: int) -> None:
        """Make a slot's slab current, and start to read the following one.

        Raises:
            CacheDamagedError: A region of the slab is missing or not as written.
        """
        if slot in self._kept:
            self._now = self._kept[slot]
        else:
            slab = self._take_ahead(slot) or self._cache.slab(slot)
            self._now = {name: torch.from_numpy(part).to(self._device) for name, part in slab.items()}
            if self._keep:
                self._kept[slot] = self._now
        if self._ahead is None and following != slot and following not in self._kept:
            self._ahead = following, self._reader.submit(self._cache.slab, following)

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of samples in the current slot, float32 (B, classes)."""
        rows = {name: part.index_select(0, samples) for name, part in self._now.items()}
        return self._encoding.probabilities(rows, self._temperature)

    def _take_ahead(self, slot: int) -> Slab | None:
        """Return the slab that was read ahead, if it is this one."""
        if self._ahead is None:
            return None
        read, future = self._ahead
        self._ahead = None
        slab = future.result()
        return slab if read == slot else None


def decoded_bytes(cache: Cache) -> int:
    """Return the size of all entries of a cache when they are not compressed."""
    sizes = Layout(cache.manifest).array_settings()
    total = 0
    for settings in sizes:
        count = settings["dtype"].itemsize
        for length in settings["shape"]:
            count *= length
        total += count
    return total
