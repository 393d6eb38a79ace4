"""What a folder of results says of itself: arms.toml of a study from a file, run.toml of a born-again sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bancache.errors import DataError
from bancache.system import configs
from bancache.system.checked import Name, checked

SETTINGS, ARMS = "run.toml", "arms.toml"


class _Study(Struct):
    seeds: list[Annotated[int, Meta(ge=0, lt=1 << 53)]]
    baseline: Name


class _Stored(Struct):
    study: _Study
    data: dict[str, Any]
    model: dict[str, Any]
    recipe: dict[str, Any]
    arms: Annotated[dict[Name, dict[str, Any]], Meta(min_length=1)]


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of the arms.toml of a folder, of which those that tables need are checked.

    Raises:
        DataError: It is missing or not TOML, or a value has a wrong type.
    """
    hint = "correct it, or choose another folder"
    tables = configs.read_toml(path, DataError, hint)
    checked(tables, _Stored, name=path, error=DataError, hint=hint)
    return tables
