"""FieldSpec: the one word that encodings and cache share about what is stored for an entry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldSpec:
    """One named array of an encoding: what one entry (a sample's one view) puts into it.

    Attributes:
        name: The array's name in the store.
        dtype: A numpy dtype name of fixed byte order, such as ``"uint8"`` or ``"float32"``.
        shape: Trailing shape of one entry, ``(classes,)`` or ``()`` for one number.
        dimensions: Names of the trailing dimensions, as many as ``shape`` has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
