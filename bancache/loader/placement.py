"""Where images and the teacher's answers lie while a net is trained: chosen by counting bytes, and said aloud.

    device   images and answers in the memory of the GPU
    pinned   images there; answers in page-locked memory of the host, copied one view index ahead
    disk     images there; answers read from disk, one view index an epoch, one view index ahead
    cpu      images and answers in memory of the host; batches are made there

On a CPU there are two, ``cpu`` and ``disk``. The batches are the same from everywhere, bit for bit.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from bancache.errors import UsageError

Placement = Literal["auto", "device", "pinned", "disk", "cpu"]
# Half of what is free: the other half is for the net, its activations, and whatever else runs there.
_SHARE = 2
# While one view index is shown another arrives, and a captured step keeps a third at an address of its own.
_VIEWS_ON_DEVICE = 3


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that are needed and bytes that are free.

    Attributes:
        images: Of the images as the renderer keeps them.
        answers: Of all views of the cache, decoded; 0 where labels alone teach.
        view_index: Of one view index.
        free_on_device: Of a GPU; 0 where there is none.
        free_on_host: Of the machine, as much as this process may use.
    """

    images: int
    answers: int
    view_index: int
    free_on_device: int
    free_on_host: int


def choose_placement(asked: Placement, room: MemoryBudget, device: torch.device) -> Placement:
    """Return where everything lies, never ``auto``.

    Raises:
        UsageError: There is no such place, or it needs a GPU.
    """
    if asked not in get_args(Placement):
        raise UsageError(f"nothing resides on '{asked}'", hint=f"use one of {', '.join(get_args(Placement))}")
    host = room.free_on_host // _SHARE
    if device.type != "cuda":
        if asked in ("device", "pinned"):
            raise UsageError(
                f"residence '{asked}' is memory of a CUDA device or for one, and this run is on '{device.type}'",
                hint="use --residence auto, cpu or disk",
            )
        return asked if asked != "auto" else "cpu" if room.answers <= host else "disk"
    if asked != "auto":
        return asked
    there = room.free_on_device // _SHARE
    # A captured step holds one view index twice.
    if room.images + room.answers + min(room.view_index, room.answers) <= there:
        return "device"
    if room.images + min(_VIEWS_ON_DEVICE * room.view_index, room.answers + room.view_index) <= there:
        return "pinned" if room.answers <= host else "disk"
    return "cpu"


def sentence(placement: Placement, room: MemoryBudget, device: torch.device) -> str:
    """Return what is told about the choice, with the numbers that it rests on."""
    images, answers = _megabytes(room.images), _megabytes(room.answers)
    host, there = _megabytes(room.free_on_host), _megabytes(room.free_on_device)
    images_at = f"on {device.type}" if placement != "cpu" else "on cpu"
    where = {
        "device": f"on {device.type}",
        "pinned": "in page-locked memory of the host, copied ahead",
        "disk": "read from disk, one view an epoch",
        "cpu": "on cpu",
    }[placement]
    free = f"free: {there} on {device.type}, {host} on the host" if device.type == "cuda" else f"free: {host}"
    told = f"images: {images} {images_at}"
    return f"{told}; teacher's answers: {answers} {where} ({free})" if room.answers else f"{told} ({free})"


def free_on_device(device: torch.device) -> int:
    """Return how many bytes of a GPU nobody uses; 0 for a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def free_on_host() -> int:
    """Return how many bytes this process may still fill, under the limit of its control group if it has one."""
    root = Path("/sys/fs/cgroup")
    limits = [_available()]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _number(root / limit), _number(root / used)
        if most is not None and now is not None:
            limits.append(max(0, most - now))
    return min(limits)


def _available() -> int:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
