"""What entries take on disk in a profile, without a cache: compressed in memory as a writer compresses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.delta_codec import fold
from bancache.cache.profile import ZSTD_LEVELS, folds


def stored_bytes(
    fields: Mapping[str, NDArray[Any]],
    classes: int,
    profile: str,
    *,
    reference: Mapping[str, NDArray[Any]] | None = None,
) -> int:
    """Return the bytes of some entries of one view index, without checksums and metadata.

    Args:
        fields: What an encoding makes of them: for each field an array (entries, *shape).
        classes: C.
        profile: ``default``, ``compact`` or ``mmap``.
        reference: The same samples' fields in view index 0; None for view index 0 itself, which no profile folds.
    """
    from numcodecs import Zstd

    size = 0
    for name, values in fields.items():
        if profile not in ZSTD_LEVELS:
            size += values.nbytes
            continue
        if reference is not None and folds(profile, values.dtype, values.shape[1:], classes):
            values = fold(values, reference[name])
        size += len(Zstd(level=ZSTD_LEVELS[profile]).encode(np.ascontiguousarray(values)))
    return size
