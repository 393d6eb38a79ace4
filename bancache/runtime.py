"""Where and how a run computes: the device, its precision, what to record about it, and when to stop."""

from __future__ import annotations

import os
import platform
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import Any

import torch

from bancache.errors import StoppedError, UsageError

_RECORDED = ("bancache", "torch", "torchvision", "zarr", "numcodecs", "numpy")


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise UsageError(f"no device is called '{name}'", hint="use auto, cpu, cuda or cuda:1")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no CUDA device", hint="use --device cpu or leave it out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"this machine has {torch.cuda.device_count()} CUDA devices, no '{name}'", hint="count from 0"
        )
    return device


def versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _RECORDED}


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware for a result line; it names no host and no path."""
    hardware: dict[str, Any] = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": _processor(),
    }
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    return {**versions(), "device": device.type, **hardware}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 (a file of the kernel's)
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Interrupt:
    """A wish to stop that work asks about between its steps."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        """Leave when a stop was asked for; the caller has kept what is done.

        Raises:
            StoppedError: With the exit code of the signal, 130 or 143.
        """
        if self.signal_number is not None:
            raise StoppedError(f"stopped: {progress}", signal_number=self.signal_number, hint=hint)

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal_number is not None


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second acts at once, as without this."""
    interrupt = Interrupt()

    def ask(number: int, frame: FrameType | None) -> None:
        interrupt.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
