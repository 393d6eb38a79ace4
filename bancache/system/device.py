"""The device of a run, and what decides the last bits of its arithmetic."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from bancache.errors import UsageError

if TYPE_CHECKING:
    import torch


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
