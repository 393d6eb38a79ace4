"""What is read from disk is data: its types, ranges and lengths are checked once, when it is read, by msgspec.

A ``Struct`` says what values a file may hold; keys that it does not name, such as those of a newer version, are ignored.
"""

from __future__ import annotations

import contextlib
import json
import math
import tomllib
from threading import Lock
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bancache.errors import BancacheError

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=1 << 14)]
Address = Annotated[str, Meta(max_length=1 << 14, pattern=r"^[^\0]*\Z")]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Size = Annotated[int, Meta(ge=1, lt=1 << 40)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, lt=1e300)]
Amount = Annotated[float, Meta(ge=0, lt=1e300)]
Finite = Annotated[float, Meta(gt=-1e300, lt=1e300)]

Kind = TypeVar("Kind")
_LONGEST_INTEGER = 20
_MOST_PARTS = 200
_CONVERTING = Lock()


def checked(
    value: object, kind: type[Kind], *, name: object, error: type[BancacheError], hint: str = ""
) -> Kind:
    """Return a value as ``kind``; ``error`` says which part of ``name``, a file, is of another type or out of range."""
    try:
        # Two threads that are the first to need a type, or one that it contains, end the process.
        with _CONVERTING:
            return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as wrong:
        what, _, place = str(wrong).partition(" - at ")
        part = place.strip("`").removeprefix("$").lstrip(".")
        text = f"{part}: " if part else ""
        raise error(f"{name}: {text}{what[:1].lower()}{what[1:].replace('`', '')}", hint=hint) from wrong


def parse_json(content: bytes | str) -> Any:
    """Return a JSON value; a number that is not finite or has hundreds of digits is a ValueError, as all else that is wrong."""
    try:
        return json.loads(content, parse_int=_integer, parse_float=_number, parse_constant=_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_object(content: bytes | None) -> dict[str, Any]:
    """Return the JSON object in some bytes, which anybody may have put there; empty if there is none."""
    with contextlib.suppress(ValueError):
        found = parse_json(content or b"")
        if isinstance(found, dict):
            return found
    return {}


def parse_toml(content: str) -> dict[str, Any]:
    """Return TOML tables; anything wrong is a ValueError."""
    # The parser takes the square of a key's parts: a megabyte of them would take an hour.
    if any(
        line.count(".") > _MOST_PARTS and not line.lstrip().startswith("#") for line in content.splitlines()
    ):
        raise ValueError("it is nested too deeply")
    try:
        return tomllib.loads(content, parse_float=_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value
