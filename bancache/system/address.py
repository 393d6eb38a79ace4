"""Addresses of object stores, such as ``s3://bucket/gen0.zarr``, where paths are given."""

from __future__ import annotations

import os
from pathlib import Path, PosixPath
from typing import Self

_SHORTEST_SCHEME = 3  # with its colon; a single letter is a drive


class Address(PosixPath):
    """An address as a path: ``parent`` and ``/`` work, and it prints as it was typed. Nothing lies there on disk."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def absolute(self) -> Self:
        """Return the address."""
        return self


def as_place(path: str | os.PathLike[str]) -> Path:
    """Return a path, as an ``Address`` if it begins with a scheme that is no folder here.

    >>> str(as_place(Path("s3://bucket/gen0.zarr")) / "manifest.json")
    's3://bucket/gen0.zarr/manifest.json'
    """
    path = Path(path)
    scheme = path.parts[0] if path.parts else ""
    if scheme.endswith(":") and len(scheme) >= _SHORTEST_SCHEME and not Path(scheme).exists():
        return Address(path)
    return path
