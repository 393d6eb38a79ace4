"""How many bytes a code takes in a store: one function for each way of packing it, so that another one is a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

Slot = dict[str, NDArray[Any]]

_REGION = 2 << 20
_CHECKSUM = 4


def default(slots: list[Slot]) -> float:
    """Return the bytes of a store's regions: each field by itself, zstd level 1 and a checksum, 2 MiB at a time."""
    total = 0
    for slot in slots:
        samples = len(next(iter(slot.values())))
        entry = sum(field[0].nbytes for field in slot.values())
        block = -(-samples // -(-samples * entry // _REGION))
        for field in slot.values():
            parts = (np.ascontiguousarray(field[start : start + block]) for start in range(0, samples, block))
            total += sum(len(Zstd(level=1).encode(part)) + _CHECKSUM for part in parts)
    return float(total)


def compact(slots: list[Slot]) -> float | None:
    """Return the bytes when slot 0 of each sample predicts its other slots; None for codes that are not bytes.

    The classes of an entry are put in the order of falling steps in slot 0 of the same sample; what is kept is the
    difference from those, modulo 256 and folded (0, −1, 1, −2 becomes 0, 1, 2, 3), at zstd level 1. Nothing is lost, and
    slot 0, kept as it is, says everything that is needed to read the others.
    """
    if set(slots[0]) != {"q"} or slots[0]["q"].dtype != np.uint8:
        return None
    first = slots[0]["q"]
    order = np.argsort(255 - first, axis=1, kind="stable")
    expected = np.take_along_axis(first, order, axis=1)
    packed: list[Slot] = [slots[0]]
    for slot in slots[1:]:
        step = np.take_along_axis(slot["q"], order, axis=1) - expected
        signed = step.view(np.int8).astype(np.int16)
        packed.append({"q": np.where(signed < 0, -2 * signed - 1, 2 * signed).astype(np.uint8)})
    return default(packed)


PROFILES: list[tuple[str, Callable[[list[Slot]], float | None]]] = [
    ("default", default),
    ("compact", compact),
]
