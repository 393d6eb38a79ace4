"""Free memory, and what is refused for the lack of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bancache.errors import OutOfMemoryError
from bancache.system import memory


def test_free_memory_of_the_host_is_some_and_not_more_than_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_on_host() <= total


def test_what_needs_more_than_is_free_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_on_host", lambda: 2_000_000_000)
    memory.require_memory(1_900_000_000, "labels", hint="")
    with pytest.raises(OutOfMemoryError, match=r"labels.*3\.5 GB.*2\.0 GB"):
        memory.require_memory(3_500_000_000, "labels", hint="")
