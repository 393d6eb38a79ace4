"""Storage profiles: the same entries on disk, as files that are quick to make, small, or quick to read.

    default   compressed, each shard by itself                                            format 1
    compact   codes of a class as their distance to the same sample's codes in view index 0      format 2
    mmap      not compressed, large chunks: a slab is mapped into memory, not read         format 2

What an entry says is the same to the last bit in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from bancache.encodings.fields import FieldSpec

DEFAULT, COMPACT, MMAP = PROFILES = ("default", "compact", "mmap")
# What a reader of an earlier version would misread must have a number that it refuses.
_VERSIONS = {DEFAULT: 1, COMPACT: 2, MMAP: 2}
NEWEST = max(_VERSIONS.values())

# 1 reaches the entropy of codes; of bit planes, 7 finds what repeats. What is not named is not compressed.
ZSTD_LEVELS = {DEFAULT: 1, COMPACT: 7}
_FOLDED = ("uint8", "int16")


def version_of(profile: str) -> int:
    """Return the lowest format version whose readers understand a profile."""
    return _VERSIONS[profile]


def folded(profile: str, fields: Iterable[FieldSpec], classes: int) -> tuple[str, ...]:
    """Return the names of the fields that are kept relative to view index 0."""
    return tuple(field.name for field in fields if folds(profile, field.dtype, field.shape, classes))


def folds(profile: str, dtype: object, shape: tuple[int, ...], classes: int) -> bool:
    """Whether a profile keeps entries of a type and shape relative to view index 0: compact, one small integer a class."""
    return profile == COMPACT and str(dtype) in _FOLDED and shape == (classes,)
