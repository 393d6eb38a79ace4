"""Caches made to harm: changed, with digests that fit, and the time and memory that refusing them may cost."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr.core.array  # noqa: F401  what is loaded late counts as memory
from contracts.small_cache import write

from bancache.cache.info import describe
from bancache.cache.manifest_io import sign
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError, MismatchError

Stored = dict[str, Any]
Change = Callable[[Stored], object]


def reseal(cache: Path, change: Change) -> None:
    """Change a manifest and give it the digest that fits."""
    stored = json.loads((cache / "manifest.json").read_text())
    del stored["digest"]
    change(stored)
    (cache / "manifest.json").write_text(json.dumps(sign(stored)))


@contextlib.contextmanager
def cheaply(*, megabytes: int = 20) -> Iterator[None]:
    """Use no more than a second of the processor and a little memory."""
    started = time.process_time()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes << 20
    assert time.process_time() - started < 1


def check_refused(cache: Path, said: str = "") -> None:
    """Opening, describing and going on with it raise an error of bancache, or succeed, at little cost."""
    with cheaply(), pytest.raises((CacheDamagedError, MismatchError), match=said):
        open_cache(cache)
    with cheaply(), contextlib.suppress(CacheDamagedError, MismatchError):
        describe(cache)
    with cheaply(), pytest.raises((CacheDamagedError, MismatchError)):
        write(cache)


def list_as(key: str, digest: object) -> Change:
    """Return the change that lists a file with another digest."""
    return lambda stored: stored["files"].update({key: digest})
