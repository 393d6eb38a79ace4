"""How many bytes a code takes in a store, by profile, as a writer cuts and compresses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from bancache.cache.profile import COMPACT, DEFAULT, folds
from bancache.cache.views import stored_bytes

EncodedView = dict[str, NDArray[Any]]

_SHARD = 2 << 20
_CHECKSUM = 4


def size(profile: str, per_view: list[EncodedView], *, classes: int) -> float | None:
    """Return the bytes of all views, view index 0 first, 2 MiB at a time; None where the profile changes nothing."""
    first = per_view[0]
    if profile != DEFAULT and not any(folds(profile, f.dtype, f.shape[1:], classes) for f in first.values()):
        return None
    samples = len(next(iter(first.values())))
    entry = sum(field[0].nbytes for field in first.values())
    block = -(-samples // -(-samples * entry // _SHARD))
    total = 0
    for view_index in per_view:
        for start in range(0, samples, block):
            rows = slice(start, start + block)
            reference = None if view_index is first else {name: field[rows] for name, field in first.items()}
            part = {name: field[rows] for name, field in view_index.items()}
            total += stored_bytes(part, classes, profile, reference=reference) + _CHECKSUM * len(part)
    return float(total)


PROFILES: list[tuple[str, Callable[..., float | None]]] = [
    (profile, partial(size, profile)) for profile in (DEFAULT, COMPACT)
]
