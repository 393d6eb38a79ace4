"""Placement: where images and targets are kept during training, chosen by counting bytes.

    device   images and targets in the GPU's memory
    pinned   images in the GPU's memory; targets in page-locked memory of the host, copied one view ahead
    disk     images in the GPU's memory; targets read from disk, one view per epoch, one view ahead
    cpu      images and targets in the host's memory; the CPU makes the batches

On a CPU only ``cpu`` and ``disk`` exist. The batches are the same for every placement, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from bancache.errors import UsageError

Placement = Literal["auto", "device", "pinned", "disk", "cpu"]
# Half of the free memory: the other half is for the model, its activations, and other processes.
_SHARE = 2
# The current view, the next one that arrives, and the copy that a captured step reads.
_VIEWS_ON_DEVICE = 3


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that are needed and bytes that are free.

    Attributes:
        images: The images as the renderer keeps them.
        targets: The encoded targets of all views; 0 without a cache.
        view: The encoded targets of one view.
        free_on_device: Of a GPU; 0 without one.
        free_on_host: As much as this process may use.
    """

    images: int
    targets: int
    view: int
    free_on_device: int
    free_on_host: int


def choose_placement(asked: Placement, budget: MemoryBudget, device: torch.device) -> Placement:
    """Return the placement to use, never ``auto``; an impossible one is a UsageError."""
    if asked not in get_args(Placement):
        raise UsageError(
            f"no placement is called '{asked}'", hint=f"use one of {', '.join(get_args(Placement))}"
        )
    if device.type != "cuda" and asked in ("device", "pinned"):
        raise UsageError(
            f"placement '{asked}' needs a CUDA device, and this run is on '{device.type}'",
            hint="use --placement auto, cpu or disk",
        )
    if asked != "auto":
        return asked
    on_host, on_device = budget.free_on_host // _SHARE, budget.free_on_device // _SHARE
    fits_host = budget.targets <= on_host
    if device.type != "cuda":
        return "cpu" if fits_host else "disk"
    # A captured step keeps a second copy of one view.
    if budget.images + budget.targets + min(budget.view, budget.targets) <= on_device:
        return "device"
    if budget.images + min(_VIEWS_ON_DEVICE * budget.view, budget.targets + budget.view) <= on_device:
        return "pinned" if fits_host else "disk"
    return "cpu"


def describe(placement: Placement, budget: MemoryBudget, device: torch.device) -> str:
    """Return a sentence about a placement, with the numbers that it was chosen by."""
    images, targets = _megabytes(budget.images), _megabytes(budget.targets)
    on_host, on_device = _megabytes(budget.free_on_host), _megabytes(budget.free_on_device)
    images_at = "on cpu" if placement == "cpu" else f"on {device.type}"
    targets_at = {
        "device": f"on {device.type}",
        "pinned": "in page-locked memory of the host, copied ahead",
        "disk": "read from disk, one view per epoch",
        "cpu": "on cpu",
    }[placement]
    on_gpu = device.type == "cuda"
    free = f"free: {on_device} on {device.type}, {on_host} on the host" if on_gpu else f"free: {on_host}"
    soft = f"; soft targets: {targets} {targets_at}" if budget.targets else ""
    return f"images: {images} {images_at}{soft} ({free})"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
