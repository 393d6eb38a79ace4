"""Pieces of a large file that is never in memory as a whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.system.files import storage_errors


class ByteSource(Protocol):
    """A file, or an object in a store, of which threads read pieces at once.

    Attributes:
        name: For messages.
        near: Whether a piece of a few bytes costs next to nothing.
    """

    name: str
    near: bool

    def size(self) -> int:
        """Return how many bytes it has."""

    def read(self, start: int, length: int) -> NDArray[np.uint8]:
        """Return some bytes in an array of their own, ``(length,)``.

        Raises:
            DataError: They cannot be read, or there are fewer.
        """

    def rewrite(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces over those that begin at the same bytes; its length stays.

        Raises:
            StorageError: It cannot be written.
        """

    def close(self) -> None:
        """Close what is open; reading opens it again."""


class LocalFile:
    """A file on a disk; one that has changed when it is opened again is refused."""

    near = True

    def __init__(self, path: Path, name: str) -> None:
        """Name a file; it is opened when it is first read."""
        self.name, self._path = name, path
        self._descriptor: int | None = None
        self._state: tuple[int, ...] | None = None
        self._lock = threading.Lock()

    def size(self) -> int:
        """Return how many bytes it has."""
        try:
            return os.fstat(self._opened()).st_size
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, start: int, length: int) -> NDArray[np.uint8]:
        """Return some bytes as ``ByteSource`` does, without mapping the file: memory does not grow with it."""
        found = np.empty(length, np.uint8)
        rest = memoryview(found.data)
        try:
            descriptor = self._opened()
            while rest:
                got = os.preadv(descriptor, [rest], start + length - len(rest))
                if not got:
                    raise DataError(
                        f"{self.name} ends before byte {start + length:,}", hint="it was cut; copy it again"
                    )
                rest = rest[got:]
        except OSError as error:
            raise self._unreadable(error) from error
        return found

    def rewrite(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces as ``ByteSource`` does, each one durable before the next is asked for."""
        for start, data in pieces:
            with storage_errors(self._path), self._path.open("r+b", buffering=0) as stream:
                done = 0
                while done < len(data):
                    done += os.pwrite(stream.fileno(), data[done:], start + done)
                os.fsync(stream.fileno())
            self._state = None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[LocalFile], tuple[Path, str]]:
        """Open it again in another process."""
        return LocalFile, (self._path, self.name)

    def _opened(self) -> int:
        with self._lock:
            if self._descriptor is None:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                found = os.fstat(descriptor)
                # Without its number, which some network file systems give anew.
                state = found.st_size, found.st_mtime_ns
                if self._state not in (None, state):  # what was read before would be taken for this file's
                    os.close(descriptor)
                    raise DataError(
                        f"{self.name} is another file than before",
                        hint="it was changed while it was used: start again",
                    )
                self._descriptor, self._state = descriptor, state
            return self._descriptor

    def _unreadable(self, error: OSError) -> DataError:
        reason = (error.strerror or str(error)).lower()
        return DataError(f"{self.name} cannot be read: {reason}", hint="check the path and the disk")
