"""Names of a package that are imported on first use: importing the package alone stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def late(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return ``__getattr__`` of a package (PEP 562).

    ``homes`` names the module of each of its names, relative to the package: ``"views.space"``. What has another name there
    follows a colon, ``"cache.info:describe"``; a module itself ends with one.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, colon, other = homes[name].partition(":")
        home = import_module(f"{package}.{module}")
        return home if colon and not other else getattr(home, other or name)

    return find
