"""Copies of encoded targets from the host to a device, beside the work that the device is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PendingCopy:
    """A copy that may still be under way.

    Attributes:
        tensors: On the device, complete once ``arrived`` is.
        arrived: Recorded behind the copy; None where nothing had to be copied.
    """

    tensors: Tensors
    arrived: torch.cuda.Event | None = None

    def received(self, device: torch.device) -> Tensors:
        """Return the tensors; work that is queued from now on waits for the copy, the host does not."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.arrived)
            for part in self.tensors.values():
                part.record_stream(stream)  # its memory was allocated on the other stream
        return self.tensors


class HostToDevice:
    """Copies from page-locked memory on a CUDA stream of its own; on a CPU it copies nothing."""

    def __init__(self, device: torch.device) -> None:
        """Open a stream on a CUDA device."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pin(self, encoded: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return arrays as tensors of the host, in page-locked memory if they are to be copied."""
        tensors = {name: torch.from_numpy(part) for name, part in encoded.items()}
        if self._stream is None:
            return tensors
        with torch.cuda.device(self._device):  # a thread starts on device 0
            return {name: part.pin_memory() for name, part in tensors.items()}

    def start(self, pinned: Tensors) -> PendingCopy:
        """Start to copy what ``pin`` returned; may be called from any thread."""
        if self._stream is None:
            return PendingCopy(pinned)
        with torch.cuda.stream(self._stream):
            copies = {name: part.to(self._device, non_blocking=True) for name, part in pinned.items()}
            return PendingCopy(copies, self._stream.record_event())
