"""What lies at a path, and which source would read it: for the hints of refusals."""

from __future__ import annotations

import difflib
from itertools import islice
from pathlib import Path

_LISTED = 8
_LOOKED_AT = 200
_PARQUET = ("*.parquet", "*/*.parquet", "default/*/*.parquet", "dataset_dict.json", "*/*.arrow")
_TORCHVISION = {
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
    "FashionMNIST": "fashion-mnist",
}
_IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

ARCHIVES = frozenset({".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"})


def listing(place: Path) -> str:
    """Return a directory, or the nearest one above that exists, with the first names in it."""
    there = next(p for p in (place, *place.parents) if p.is_dir())
    names = sorted(p.name for p in there.iterdir())
    return f"{there} has {', '.join(names[:_LISTED]) or 'nothing'}{', …' if len(names) > _LISTED else ''}"


def meant(path: str) -> str:
    """Return a hint that begins with the source that reads a path, or one with a similar name; empty if none does."""
    try:
        place = Path(path).expanduser()
        if not place.exists():
            near = difflib.get_close_matches(place.name, [p.name for p in place.parent.iterdir()], n=1)
            place = place.with_name(near[0]) if near else place
        form = _form(place)
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
    except (OSError, RuntimeError, ValueError):  # also a user that there is not, or a zero byte
        return ""
    packed = next((p for p in inside if p.suffix.lower() in ARCHIVES and p.is_file()), None)
    return f"did you mean {form}? " if form else f"unpack {packed} first; " if packed else ""


def _form(place: Path) -> str | None:
    if place.is_file():
        if place.suffix == ".parquet":
            return f"parquet:{place.parent}"
        return f"{place.suffix[1:]}:{place}" if place.suffix in (".npz", ".pack") else None
    if not place.is_dir():
        return None
    for name, kind in _TORCHVISION.items():
        if (place / name).is_dir():
            return f"{kind}:{place}"
        if place.name == name:
            return f"{kind}:{place.parent}"
    if any(next(place.glob(pattern), None) for pattern in _PARQUET):
        return f"parquet:{place}"
    if any(p.suffix.lower() in _IMAGES for p in islice(place.glob("*/**/*"), _LOOKED_AT)):
        return f"folder:{place}"
    files = sorted(place.glob("*.npz")) + sorted(place.glob("*.pack"))
    return _form(files[0]) if files else None
