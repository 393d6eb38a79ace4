"""Request: the arguments of one call of ``open_source``, passed to the module that reads the source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bancache.errors import DataError
from bancache.sources.nearest import listing, meant
from bancache.system.progress import Progress

SPLITS = ("train", "test")

# 1: 16-bit pictures always end at 65,535. 2: they end at the usual depth that holds the largest value of the data set.
DECODER = 2


@dataclass(frozen=True)
class Request:
    """One split of one source, and how to read it.

    Attributes:
        name: The source as typed, for messages.
        kind: The part before the colon, such as ``"parquet"``.
        path: The part after the colon; empty for a source without a path.
        split: One of ``SPLITS``.
        image_size: Height and width in pixels that every image gets; None keeps them as they are.
        download: Whether missing files may be downloaded.
        progress: Receives progress of slow work.
        cache_dir: Directory of decoded pixels; None means the user's cache directory.
        skip_bad: Whether pictures that cannot be read are left out.
        decoder: Version of the rules by which pictures become pixels.
    """

    name: str
    kind: str
    path: str
    split: str
    image_size: int | None
    download: bool
    progress: Progress
    cache_dir: Path | None
    skip_bad: bool = False
    decoder: int = DECODER

    @property
    def place(self) -> Path:
        """The path, absolute."""
        return absolute(self.path)

    def existing_place(self, is_kind: Callable[[Path], bool], what: str) -> Path:
        """Return the path; raise DataError if it does not exist or is not a ``what``."""
        place = self.place
        if not place.exists():
            raise DataError(
                f"{self.name}: {place} does not exist; {listing(place)}",
                hint=f"{meant(self.path)}check the path, or name another with --data",
            )
        if not is_kind(place):
            raise DataError(
                f"{self.name}: {place} is not a {what}", hint=f"{meant(self.path)}{self.kind}: takes a {what}"
            )
        return place

    def note_split(self, split: str, chosen: str, others: list[str]) -> None:
        """Say which part of the data is a split, unless it is called so and no other part could be."""
        if others or not re.match(rf"{split}\b", chosen.lower()):
            rest = f"; left out {', '.join(others[:3])}{', …' if len(others) > 3 else ''}" if others else ""
            self.progress.note(f"{self.name}: the {split} images are those of {chosen}{rest}")

    def other_kind(self) -> str:
        """Return the beginning of a hint that names another kind of source, if one reads what is there."""
        hint = meant(self.path)
        return "" if f" {self.kind}:" in hint else hint


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn an ``OSError`` while a source is read into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or source} cannot be read: {error.strerror or error}",
            hint="check the path and who may read it",
        ) from error


def is_address(path: str) -> bool:
    """Return whether a path is an address in an object store.

    >>> is_address("s3://bucket/train.pack"), is_address("/data/train.pack")
    (True, False)
    """
    return "://" in path


def absolute(path: str) -> Path:
    """Return an absolute path, with ``~`` expanded; DataError if no file can be called so."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # a user that there is not, or a zero byte
        raise DataError(f"no file is called {path!r}: {error}", hint="check the path") from error
