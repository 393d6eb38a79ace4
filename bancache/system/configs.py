"""Frozen dataclasses to dicts and TOML, and back: reading what was written gives an equal object."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from bancache.errors import BancacheError, UsageError
from bancache.system.checked import parse_toml
from bancache.system.files import read_bounded, write_atomically

Config = TypeVar("Config")
Tables = Mapping[str, Mapping[str, Any]]
_LIMIT = 1 << 20


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as a dict of JSON values; tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    return plain


def from_dict(kind: type[Config], values: Mapping[str, Any], *, what: str) -> Config:
    """Build a dataclass of numbers, strings, tuples and None from a dict, which ``what`` names in errors.

    Raises:
        UsageError: A key is unknown (the hint names the nearest), or a key without default is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(fields))}"
            raise UsageError(f"{what} has an unknown setting '{key}'", hint=hint)
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except TypeError as error:
        raise UsageError(f"{what} is incomplete: {error}") from error


def plain(tables: Tables) -> dict[str, dict[str, Any]]:
    """Return tables as TOML gives them back: lists instead of tuples, no None."""
    plain = json.loads(json.dumps(tables)).items()
    return {
        title: {key: value for key, value in table.items() if value is not None} for title, table in plain
    }


def write_toml(path: Path, tables: Tables) -> None:
    """Write tables of JSON values as TOML durably; leave out values of None."""
    import tomli_w

    write_atomically(path, tomli_w.dumps(plain(tables)).encode())


def read_toml(path: Path, error: type[BancacheError] = UsageError, hint: str = "") -> dict[str, Any]:
    """Read TOML tables; raise ``error``, ``DataError`` for files that no user wrote, if the file is not TOML."""
    content = read_bounded(path, limit=_LIMIT, error=error)
    try:
        return parse_toml(content.decode())
    except ValueError as wrong:
        raise error(f"{path} is not TOML: {wrong}", hint=hint) from wrong
