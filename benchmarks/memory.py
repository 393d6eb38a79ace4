"""Memory of this process while something runs."""

from __future__ import annotations

import gc
import re
from pathlib import Path


class Memory:
    """How far the memory of this process rises above what it holds now (Linux)."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
        self._held = self.held()

    def risen(self) -> int:
        """Return the bytes by which the peak since then exceeds what was held."""
        return self._read("VmHWM") - self._held

    def peak(self) -> int:
        """Return the most bytes that the whole process has held since then."""
        return self._read("VmHWM")

    @staticmethod
    def held() -> int:
        """Return the bytes that the whole process holds now."""
        return Memory._read("VmRSS")

    @staticmethod
    def _read(name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) * 1024
