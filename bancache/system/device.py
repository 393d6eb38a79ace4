"""The device of a run, and the versions and hardware that result lines record."""

from __future__ import annotations

import os
import platform
import re
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from bancache.errors import UsageError

if TYPE_CHECKING:
    import torch

_RECORDED = ("torch", "torchvision", "zarr", "numcodecs", "numpy")


def check_device_name(name: str) -> None:
    """Raise ``UsageError`` if no device can have this name; without torch."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise UsageError(f"no device is called '{name}'", hint="use auto, cpu, cuda or cuda:1")


def choose_device(name: str, *, local: int = 0) -> torch.device:
    """Return the device called ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    With ``auto`` or ``cuda``, the process of local rank ``local`` gets the CUDA device of that number.

    Raises:
        UsageError: This machine has no such device.
    """
    check_device_name(name)
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local and torch.cuda.is_available():
        name = f"cuda:{local % torch.cuda.device_count()}"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device", hint="use --device cpu or leave it out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"this machine has {torch.cuda.device_count()} CUDA devices, no '{name}'", hint="count from 0"
        )
    return device


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results."""
    # An unpacked checkout is not installed, so no metadata has its version; the package above imports every room.
    own = {"python": platform.python_version(), "bancache": str(import_module("bancache").__version__)}
    return own | {name: metadata.version(name) for name in _RECORDED}


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware for a result line, without host name or path."""
    import torch

    hardware = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "cpu": _processor()}
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {**versions(), "device": device.type, **hardware, **gpu}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 (a file of the kernel)
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
