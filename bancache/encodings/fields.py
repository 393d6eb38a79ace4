"""FieldSpec, by which encodings tell the cache what is stored for a (sample, view) pair."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldSpec:
    """One named array of an encoding.

    Attributes:
        name: The array's name in the store.
        dtype: A numpy dtype name of fixed byte order, such as ``"uint8"`` or ``"float32"``.
        shape: Shape of one (sample, view) pair: ``(classes,)``, or ``()`` for one number.
        dimensions: Names of the trailing dimensions, as many as ``shape`` has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
