"""Words of messages."""

from __future__ import annotations

_PLURALS = {"class": "classes", "process": "processes", "teacher pass": "teacher passes"}


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one.

    >>> count(1, "damaged file"), count(1438, "image"), count(0, "class")
    ('1 damaged file', '1,438 images', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"
