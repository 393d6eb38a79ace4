"""Ways to damage a file, by name; each takes the file and another one of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, Path], None]


def _flip(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def _empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def _delete(file: Path, other: Path) -> None:
    file.unlink()


def _append(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _swap(file: Path, other: Path) -> None:
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


def _link(file: Path, other: Path) -> None:
    """Replace the file by a link to the same content."""
    aside = file.with_name(file.name + ".aside")
    file.rename(aside)
    file.symlink_to(aside)


def _folder(file: Path, other: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Damage] = {
    "flipped": _flip,
    "truncated": _truncate,
    "emptied": _empty,
    "deleted": _delete,
    "appended to": _append,
    "swapped": _swap,
    "a link": _link,
    "a folder": _folder,
}
