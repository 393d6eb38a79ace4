"""How much memory is free for this process, and the refusal of what needs more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from bancache.errors import OutOfMemoryError

_NOT_WORTH_ASKING = 1 << 26
_ROOT = Path("/")
# Limit, use, and pages of files among the used ones, which the kernel takes back before it kills.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def free_on_host(root: Path = _ROOT) -> int:
    """Return how many bytes this process may still use, within the limits of its control groups."""
    return min([_available(root), *_left_in_groups(root)])


def require_memory(needed: int, what: str, *, hint: str) -> None:
    """Refuse what needs more bytes than are free, before it is allocated; ``what`` begins the message.

    Raises:
        OutOfMemoryError: ``needed`` bytes are more than are free.
    """
    if needed > _NOT_WORTH_ASKING and needed > (free := free_on_host()):
        raise OutOfMemoryError(
            f"{what} need {needed / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free", hint=hint
        )


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left of the limit of each control group around this process, of both versions."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = _V1 if controllers else _V2
        # A container often sees its own group at the top, whatever its path outside.
        own = top / path.strip("/")
        for group in {own, *own.parents} - {*top.parents}:
            most, used = _number(group / names[0]), _number(group / names[1])
            if most is not None and used is not None:
                cached = re.search(rf"^{names[2]} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
                yield max(0, most - used + (int(cached[1]) if cached else 0))


def _available(root: Path) -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"))
    return int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
