"""Changes of soft targets when they are read, by name: controls that show what of a teacher's rows a student uses.

Names are checked without torch; ``bancache.loader.changed_targets`` computes them.
"""

from __future__ import annotations

import re

from bancache.errors import UsageError

UNCHANGED = "none"
CHANGES = (UNCHANGED, "smooth0.1", "max-uniform", "permute-rest", "shuffle-in-class", "class-mean")
_SMOOTH = re.compile(r"smooth(0(?:\.\d{1,9})?|1)")


def check_change(name: str) -> None:
    """Raise ``UsageError`` if no change of targets has this name."""
    if name not in CHANGES and smoothing(name) is None:
        raise UsageError(
            f"no change of targets is called '{name}'",
            hint=f"use one of {', '.join(CHANGES)}; smooth takes any share, such as smooth0.05",
        )


def smoothing(name: str) -> float | None:
    """Return the share that ``smooth0.1`` spreads over all classes; None for other changes.

    >>> smoothing("smooth0.1"), smoothing("class-mean")
    (0.1, None)
    """
    found = _SMOOTH.fullmatch(name)
    return float(found[1]) if found else None
