"""A lattice by its name, for tests that look inside."""

from __future__ import annotations

from bancache.views import Lattice, ViewSpace


def lattice(name: str, *, seed: int = 0) -> Lattice:
    """Return the lattice of a name such as ``crop4-flip``."""
    space = ViewSpace.parse(name, seed=seed)
    assert isinstance(space, Lattice)
    return space
