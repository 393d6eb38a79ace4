"""Folders in memory, where flushing is free."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A small cache takes a hundred flushes, each of which waits for a real disk."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bancache-test-", dir=where) as folder:
        yield Path(folder).resolve()
