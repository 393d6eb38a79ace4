"""Targets from a cache: one slab an epoch, the next fetched ahead by a thread, kept where there is room."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import torch

from bancache.cache.layout import Layout
from bancache.cache.reader import Cache
from bancache.encodings import from_config
from bancache.encodings.certify import require_faithful
from bancache.encodings.root import ZERO_STEP, Root
from bancache.loader.device_copy import HostToDevice, PendingCopy, Tensors
from bancache.losses.weights import Codes
from bancache.system import numba as compiled
from bancache.system.numba import Accelerator

if TYPE_CHECKING:
    from bancache.encodings.fused import RowDecoder

Kept = Literal["device", "host", "none"]


class CacheTargets:
    """Answers from a cache, on a device.

    A slab (one view index of all samples) is read whole, checked against the manifest, and moved to the device
    while the one before it is shown. Either all slabs stay on the device, or all stay in memory of the host,
    or one is shown and one fetched ahead, and memory does not grow with the number of views.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        keep: Kept = "device",
        accelerator: Accelerator = "auto",
    ) -> None:
        """Open the answers of a cache at a temperature.

        Args:
            cache: An open cache.
            temperature: T of the probabilities.
            device: Where slabs are shown and probabilities appear.
            keep: Where slabs stay after they were shown.
            accelerator: ``numba`` or ``none``; by default numba, where it is installed, once so many answers have been
                decoded that it pays. It never changes a bit, and serves root codes on a CPU alone.

        Raises:
            UsageError: The cache's encoding is not faithful at that temperature; or numba is not installed.
        """
        manifest = cache.manifest
        self._encoding = from_config(manifest.encoding, manifest.classes)
        require_faithful(self._encoding, manifest.classes, temperature, cache.summary.get("fidelity"))
        self._cache, self._temperature, self._device = cache, temperature, torch.device(device)
        # A map costs nothing to ask for again, and each one that is kept costs a descriptor.
        self._keep: Kept = "none" if cache.mapped and self._device.type == "cpu" else keep
        self._carrier = HostToDevice(self._device)
        self._kept: dict[int, Tensors] = {}
        self._now: Tensors = {}
        self._view_index: int | None = None
        self._held = False
        self._ahead: tuple[int, Future[PendingCopy]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="bancache-slab")
        self._decoded, self._accelerator = 0, accelerator
        self._fused: RowDecoder | None = None
        if accelerator == "numba":
            compiled.require()
            self._accelerate()

    def begin(self, view_index: int, following: int) -> None:
        """Make a view index's slab current, and start to fetch the following one.

        Raises:
            CacheDamagedError: A shard of the slab is missing or not as written.
        """
        on_device = self._keep == "device"
        if on_device and view_index in self._kept:
            self._show(self._kept[view_index])
        elif view_index != self._view_index:
            encoded = (self._take_ahead(view_index) or self._fetch(view_index)).received(self._device)
            if on_device:
                self._kept[view_index] = encoded
            self._show(encoded)
        self._view_index = view_index
        if self._ahead is None and following != view_index and not (on_device and following in self._kept):
            self._ahead = following, self._reader.submit(self._fetch, following)

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of samples in the current view index, float32 (B, classes)."""
        if self._fused is not None:
            return self._fused.decode(samples)
        self._decoded += len(samples)
        if self._accelerator == "auto" and self._decoded >= compiled.WORTH_AFTER_VIEWS:
            self._accelerate()
        rows = {name: part.index_select(0, samples) for name, part in self._now.items()}
        return self._encoding.probabilities(rows, self._temperature)

    def _accelerate(self) -> None:
        """Leave what follows to numba, if it is here and has the bits of torch for these codes."""
        self._accelerator = "numba" if compiled.is_installed() else "none"
        code = self._encoding
        if self._accelerator == "none" or self._device.type != "cpu" or not isinstance(code, Root):
            return
        power = code.exact_power(self._temperature)
        if power is not None:
            from bancache.encodings.fused import RowDecoder

            self._fused = RowDecoder(classes=code.classes, power=power, zero=ZERO_STEP)
            self._show(self._now)

    def codes(self) -> Codes | None:
        """Return the current view index as codes that a loss can decode itself; None for encodings that are no such codes."""
        if not isinstance(self._encoding, Root):
            return None
        return Codes(self._now["q"], self._encoding.root, self._encoding.levels, ZERO_STEP)

    def hold(self) -> None:
        """Show every view index at the addresses of the current one from now on, for a step that is captured."""
        self._now = {name: part.clone() for name, part in self._now.items()}
        self._held = True

    def _show(self, encoded: Tensors) -> None:
        if self._held:
            for name, part in encoded.items():
                self._now[name].copy_(part)
        else:
            self._now = encoded
        if self._fused is not None and self._now:
            self._fused.show(self._now["q"])

    def _fetch(self, view_index: int) -> PendingCopy:
        """Read a view index, unless the host has it, and start to move it; in whichever thread."""
        parts = self._kept.get(view_index) if self._keep == "host" else None
        if parts is None:
            parts = self._carrier.load(self._cache.read_view(view_index))
            if self._keep == "host":
                self._kept[view_index] = parts
        return self._carrier.send(parts)

    def _take_ahead(self, view_index: int) -> PendingCopy | None:
        """Return the slab that was fetched ahead, if it is this one."""
        if self._ahead is None:
            return None
        fetched, future = self._ahead
        self._ahead = None
        cargo = future.result()
        return cargo if fetched == view_index else None


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
