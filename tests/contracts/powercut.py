"""A disk that keeps only what was flushed: of a file its bytes, of a folder its names, at their last fsync.

This is the worst that POSIX allows. A file whose folder was not flushed is missing after a power cut; a file that was
removed without a flush of its folder is back.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

# By inode: of files their flushed bytes; of folders their flushed names, with each one's inode and kind.
_Names = dict[str, tuple[int, bool]]
State = tuple[dict[int, bytes], dict[int, _Names]]


class Disk:
    """Records the flushes below a folder that is itself on disk.

    Attributes:
        states: If a test sets it to a list: what a power cut would have left after each flush.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, _Names] = {}
        # An inode that is open is not given to another file.
        self._open: list[int] = []
        self.states: list[State] | None = None
        patch.setattr(os, "fsync", self._flush)

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def state(self) -> State:
        """Return what a power cut now would leave."""
        return dict(self._files), dict(self._folders)

    def restore(self, state: State, to: Path) -> Path:
        """Build what is left after a power cut."""
        to.mkdir()
        _restore(self._root.stat().st_ino, state, to)
        return to

    def _flush(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        self._open.append(os.dup(descriptor))
        if stat.S_ISDIR(about.st_mode):
            self._folders[about.st_ino] = {e.name: (e.inode(), e.is_dir()) for e in os.scandir(descriptor)}
        else:
            self._files[about.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        if self.states is not None:
            self.states.append(self.state())


def _restore(inode: int, state: State, to: Path) -> None:
    files, folders = state
    for name, (entry, is_folder) in folders.get(inode, {}).items():
        if is_folder:
            (to / name).mkdir()
            _restore(entry, state, to / name)
        else:
            (to / name).write_bytes(files.get(entry, b""))
