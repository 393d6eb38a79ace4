"""How much memory is free, and the refusal of what needs more."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bancache.errors import OutOfMemoryError

_NOT_WORTH_ASKING = 1 << 26


def free_on_host() -> int:
    """Return how many bytes this process may still use, within the limit of its control group."""
    root = Path("/sys/fs/cgroup")
    limits = [_available()]
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        most, now = _number(root / limit, r"(\d+)\s*$"), _number(root / used, r"(\d+)")
        if most is not None and now is not None:
            # The kernel counts files that it keeps in memory as used, and drops them when it needs the room.
            kept = _number(root / statistics, r"(?m)^(?:total_)?inactive_file (\d+)") or 0
            limits.append(max(0, most - max(0, now - kept)))
    return min(limits)


def require_memory(needed: int, what: str, *, hint: str) -> None:
    """Refuse what needs more bytes than are free, before it is allocated; ``what`` begins the message.

    Raises:
        OutOfMemoryError: ``needed`` bytes are more than are free.
    """
    if needed > _NOT_WORTH_ASKING and needed > (free := free_on_host()):
        raise OutOfMemoryError(
            f"{what} need {needed / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free", hint=hint
        )


def _available() -> int:
    found = _number(Path("/proc/meminfo"), r"MemAvailable:\s+(\d+) kB")
    return found * 1024 if found is not None else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path, pattern: str) -> int | None:
    """Return the number that a pattern finds in a file of the kernel; "max" is none."""
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None
