"""File systems for tests: small, read-only, or on a disk whose power can be cut. All need the right to mount."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

# _IOR('X', 125, __u32) of ext4 and xfs: stop at once, without flushing the journal, as a power cut would.
_FS_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


def command(*argv: str) -> None:
    """Run a command of the system.

    Raises:
        OSError: It failed, or is not there.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip()}")


class Mount:
    """A file system in memory, of a given size."""

    def __init__(self, path: Path, *, megabytes: int = 4) -> None:
        self.path = path
        path.mkdir()
        command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))

    def change(self, options: str) -> None:
        """Mount it again with other options."""
        command("mount", "-o", f"remount,{options}", str(self.path))

    def close(self) -> None:
        """Unmount it."""
        command("umount", str(self.path))


class LoopDisk:
    """An ext4 in a file, which can lose its power and come back with what its journal has."""

    def __init__(self, folder: Path) -> None:
        self.path, self._image = folder / "disk", folder / "disk.img"
        self.path.mkdir()
        with self._image.open("wb") as stream:
            stream.truncate(32 << 20)
        command("mkfs.ext4", "-q", str(self._image))
        self._mount()

    def cut(self) -> None:
        """Cut the power: nothing reaches the disk from now on, and every write fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restart(self) -> None:
        """Mount the disk again, as after a power cut."""
        self.close()
        self._mount()

    def close(self) -> None:
        """Unmount it."""
        command("umount", str(self.path))

    def _mount(self) -> None:
        command("mount", "-o", "loop", str(self._image), str(self.path))
