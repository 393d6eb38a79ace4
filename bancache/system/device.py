"""The device of a run, and the versions and hardware that result lines record."""

from __future__ import annotations

import itertools
import os
import platform
import re
from functools import cache
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


def arithmetic(device: torch.device) -> dict[str, Any]:
    """Return what decides the last bits of a model's outputs beside its precision, for the manifest of a cache.

    ``device`` is ``cpu`` or a GPU's name. Of a GPU also ``tf32``: which products of float32 it rounds to TF32; and
    ``deterministic``: whether torch was told to repeat its bits.
    """
    import torch

    if device.type != "cuda":
        return {"device": device.type}
    # torch's stubs lack some of these names.
    cudnn, cublas = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    kinds = {"convolutions": cudnn, "matmuls": cublas}
    rounded = [name for name, kind in kinds.items() if kind.fp32_precision == "tf32"]
    return {
        "device": torch.cuda.get_device_name(device),
        "tf32": " and ".join(rounded) or "none",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def make_deterministic() -> None:
    """Let torch use only operations that repeat their bits on one kind of GPU; call it before a GPU is used.

    From then on an operation without such an implementation is a RuntimeError in this process. TF32 repeats its bits,
    too, and stays as it is.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it chooses kernels by their speed
    # Or each new tensor is filled first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


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
