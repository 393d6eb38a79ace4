"""Storage profiles: the same encoded targets on disk, as files that are quick to write, small, or quick to read.

``default`` compresses each shard by itself. ``compact`` stores codes relative to the same sample's codes in view 0.
``mmap`` does not compress: a view is mapped into memory. The decoded values are bit-identical.
"""

from __future__ import annotations

from collections.abc import Iterable

from bancache.encodings.fields import FieldSpec

DEFAULT, COMPACT, MMAP = PROFILES = ("default", "compact", "mmap")
# A reader of an earlier version would misread these, so they have a version number that it refuses.
VERSIONS = {DEFAULT: 1, COMPACT: 2, MMAP: 2}
# Of a cache in any profile whose manifest says how many samples a shard has.
LARGE_SHARDS = 3

# Level 1 reaches the entropy of codes; level 7 finds the repetitions in bit planes. Other profiles are not compressed.
ZSTD_LEVELS = {DEFAULT: 1, COMPACT: 7}
_FOLDED = ("uint8", "int16")


def folded(profile: str, fields: Iterable[FieldSpec], classes: int) -> tuple[str, ...]:
    """Return the names of the fields that are stored relative to view 0."""
    return tuple(field.name for field in fields if folds(profile, field.dtype, field.shape, classes))


def folds(profile: str, dtype: object, shape: tuple[int, ...], classes: int) -> bool:
    """Whether a profile stores such a field relative to view 0: ``compact`` does for one small integer a class."""
    return profile == COMPACT and str(dtype) in _FOLDED and shape == (classes,)
