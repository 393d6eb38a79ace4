"""The log of a run: one record per finished epoch, as JSON lines and, on request, as TensorBoard events.

The log receives the whole history each time and replaces its content. So no epoch is lost or written twice when a run
is killed between two epochs, or between saving its state and writing the log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bancache.errors import MissingExtraError
from bancache.system.files import make_directory, storage_errors, write_atomically

Epoch = dict[str, Any]


class EpochLog:
    """Writes one JSON object per epoch and line. The file is replaced as a whole; follow it with ``tail -F``."""

    def __init__(self, path: Path | None, tensorboard: str | os.PathLike[str] | None = None) -> None:
        """Open a log. With ``path`` None nothing is written: another process of the run has the log.

        TensorBoard events of earlier attempts are hidden and written again.
        """
        self._path = path
        self._events = _summary_writer(Path(tensorboard)) if path and tensorboard is not None else None
        self._written: set[tuple[int, str]] = set()

    def write(self, history: Sequence[Epoch]) -> None:
        """Replace the content by these records: ``epoch`` from 1, and figures by name as in ``history`` of a result."""
        if self._path is None:
            return
        lines = [json.dumps(entry, allow_nan=False) + "\n" for entry in history]
        write_atomically(self._path, "".join(lines).encode())
        if self._events is None:
            return
        for entry in history:
            for name in entry.keys() - {"epoch"}:
                if (entry["epoch"], name) not in self._written:
                    self._events.add_scalar(name, entry[name], entry["epoch"])
                    self._written.add((entry["epoch"], name))
        self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


def _summary_writer(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoard is not installed", hint='pip install "bancache[tensorboard]"'
        ) from error
    make_directory(directory)
    with storage_errors(directory):
        return SummaryWriter(str(directory), purge_step=0)
