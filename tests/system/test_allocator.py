"""Freed memory is used again without asking the kernel for it."""

from __future__ import annotations

import platform
import resource

import numpy as np
import pytest

from bancache.system.allocator import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

# As an epoch's last batch and the next one's first: several blocks, all freed at once.
BLOCKS, SIZE = 6, 16 << 20


def _pages_taken() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.ones(SIZE, np.uint8) for _ in range(BLOCKS)]
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    held.clear()
    return taken


def test_memory_that_was_freed_is_not_taken_again_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory()
    _pages_taken()

    assert _pages_taken() < BLOCKS * SIZE / 4096 / 100
