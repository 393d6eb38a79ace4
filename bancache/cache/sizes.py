"""Bytes that encoded targets take on disk, without a cache: encoded in memory as a writer encodes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bancache.cache.chunks import CHECKSUM_BYTES, encode_chunk
from bancache.cache.delta_codec import fold
from bancache.cache.profile import ZSTD_LEVELS, folds


def stored_bytes(
    fields: Mapping[str, NDArray[Any]],
    classes: int,
    profile: str,
    *,
    reference: Mapping[str, NDArray[Any]] | None = None,
) -> int:
    """Return the bytes of some samples in one view, without checksums and metadata.

    Args:
        fields: Encoded targets, for each field an array (samples, *shape).
        classes: C.
        profile: ``default``, ``compact`` or ``mmap``.
        reference: The same samples' fields in view 0; None for view 0 itself, which no profile folds.
    """
    size = 0
    for name, values in fields.items():
        if reference is not None and folds(profile, values.dtype, values.shape[1:], classes):
            values = fold(values, reference[name])
        size += len(encode_chunk(values, len(values), ZSTD_LEVELS.get(profile))) - CHECKSUM_BYTES
    return size
