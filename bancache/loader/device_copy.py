"""Carrier: brings a slab from the host to a device beside the work that is under way there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PendingCopy:
    """A slab on its way.

    Attributes:
        tensors: On the device, complete once ``arrived`` is.
        arrived: Recorded behind the copy; None where nothing had to be copied.
    """

    tensors: Tensors
    arrived: torch.cuda.Event | None = None

    def received(self, device: torch.device) -> Tensors:
        """Return the tensors for work that is queued from now on; the host does not wait."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.arrived)
            for part in self.tensors.values():
                part.record_stream(stream)  # its memory was taken on the other stream
        return self.tensors


class HostToDevice:
    """Copies on a stream of its own from page-locked memory; on a CPU it has nothing to do."""

    def __init__(self, device: torch.device) -> None:
        """Open a stream on a CUDA device."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def load(self, encoded: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return a slab as tensors of the host, in page-locked memory where it is to be copied."""
        parts = {name: torch.from_numpy(part) for name, part in encoded.items()}
        if self._stream is None:
            return parts
        with torch.cuda.device(self._device):  # a thread starts on device 0
            return {name: part.pin_memory() for name, part in parts.items()}

    def send(self, parts: Tensors) -> PendingCopy:
        """Start the copy of what ``load`` returned, from any thread."""
        if self._stream is None:
            return PendingCopy(parts)
        with torch.cuda.stream(self._stream):
            there = {name: part.to(self._device, non_blocking=True) for name, part in parts.items()}
            return PendingCopy(there, self._stream.record_event())
