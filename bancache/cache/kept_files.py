"""Files of a cache in an object store that stay on this machine's disk, up to a bound, for later epochs and later runs.

Which ones is decided when the cache is opened: the first of its files, view by view, that fit. A rule that makes room
for what was read last would keep nothing, since an epoch reads other views than the one before. Several processes may
keep files of one cache at once: they choose the same ones, and each file is whole or not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from bancache.cache.digests import Digest, digest_of
from bancache.errors import StorageError, UsageError
from bancache.system.files import (
    bytes_below,
    cache_directory,
    files_below,
    free_bytes,
    make_directory,
    write_atomically,
)

_FOLDER = "targets"


class KeptFiles:
    """The files of one cache that may be kept, in a folder that is named by the cache's digest."""

    def __init__(self, digest: str, files: Mapping[str, Digest], limit: int) -> None:
        """Choose the first of ``files`` that fit in ``limit`` bytes, and make room for them.

        What was kept of other caches, the one that was opened longest ago first, goes as far as both exceed the limit.

        Raises:
            UsageError: The disk does not have the room, or the user has no home directory.
        """
        top = cache_directory(_FOLDER)
        self._root, self._chosen = top / digest, frozenset(_first(files, limit))
        make_directory(self._root)
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._root)  # it was opened now
        self._remove_others()
        chosen = sum(files[key].size for key in self._chosen)
        room = limit - chosen
        for folder in _by_time(top):
            if folder != self._root:
                room -= bytes_below(folder)
                if room < 0:
                    shutil.rmtree(folder, ignore_errors=True)
        missing, free = chosen - bytes_below(self._root), free_bytes(self._root)
        if missing > free:
            raise UsageError(
                f"{missing / 1e9:,.1f} GB of the cache would be kept in {top}, and {free / 1e9:,.1f} GB are free",
                hint="name a smaller --keep-local, or set XDG_CACHE_HOME to a folder on another disk",
            )

    def get(self, key: str, digest: Digest) -> bytes | None:
        """Return a file, or None if it is not kept or not as its digest says."""
        if key not in self._chosen:
            return None
        with contextlib.suppress(OSError), (self._root / key).open("rb") as stream:
            content = stream.read(digest.size + 1)
            return content if digest_of(content) == digest else None
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep a file, if it is one of the chosen ones; a full or failing disk keeps none."""
        if key in self._chosen:
            with contextlib.suppress(StorageError, UsageError, OSError):
                make_directory((self._root / key).parent)
                write_atomically(self._root / key, content)

    def _remove_others(self) -> None:
        """Remove what an earlier, larger limit kept, and what killed processes left half written."""
        for file in files_below(self._root):
            if file.relative_to(self._root).as_posix() not in self._chosen:
                with contextlib.suppress(OSError):
                    file.unlink()


def _first(files: Mapping[str, Digest], limit: int) -> Iterator[str]:
    for key, digest in files.items():
        limit -= digest.size
        if limit < 0:
            return
        yield key


def _by_time(top: Path) -> list[Path]:
    """Return the folders of caches, those opened last first."""
    opened: dict[Path, float] = {}
    for folder in top.iterdir():
        if re.fullmatch("[0-9a-f]{64}", folder.name):
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                opened[folder] = folder.stat().st_mtime
    return sorted(opened, key=opened.__getitem__, reverse=True)
