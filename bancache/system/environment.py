"""The versions and the hardware that result lines and manifests record."""

from __future__ import annotations

import itertools
import os
import platform
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from bancache.system.device import arithmetic

if TYPE_CHECKING:
    import torch

_RECORDED = ("torch", "torchvision", "zarr", "numcodecs", "numpy", "pillow")


def versions(device: torch.device | None = None) -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results, on a GPU those of CUDA and cuDNN, too."""
    # An unpacked checkout is not installed, so no metadata has its version; the package above imports every room.
    own = {"python": platform.python_version(), "bancache": str(import_module("bancache").__version__)}
    found = own | _installed()
    if device is None or device.type != "cuda":
        return found
    import torch

    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {**found, "cuda": str(torch.version.cuda), "cudnn": str(cudnn)}


@cache
def _installed() -> dict[str, str]:
    """Read from the files of the packages once: it takes milliseconds."""
    return {name: metadata.version(name) for name in _RECORDED}


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware for a result line, without host name or path."""
    import torch

    hardware = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "cpu": _processor()}
    found = arithmetic(device)
    gpu = {"gpu": found.pop("device"), **found} if device.type == "cuda" else {}
    return {**versions(device), "device": device.type, **hardware, **gpu}


def _processor() -> str:
    """Return the processor's name, with its family and model where Linux says them: clouds call many of them alike."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 (a file of the kernel)
            for line in itertools.takewhile(str.strip, lines):
                key, _, value = line.partition(":")
                found[key.strip()] = value.strip()
        name = found["model name"]
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
    kind = ", ".join(f"{key.split()[-1]} {found[key]}" for key in ("cpu family", "model") if key in found)
    return f"{name} ({kind})" if kind else name
