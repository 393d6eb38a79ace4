"""A run's epochs, written down while it is under way: one protocol, and who keeps them.

A log is told the whole history each time and holds exactly that. So nothing is lost and nothing doubled when a
run is killed between two epochs, or between saving its state and telling the log: the next attempt tells it all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bancache.errors import MissingExtraError
from bancache.system.files import make_directory, storage_errors, write_atomically

Epoch = dict[str, Any]


class EpochLog(Protocol):
    """Keeps what a run's epochs were like."""

    def show(self, history: Sequence[Epoch]) -> None:
        """Hold these epochs: ``epoch`` from 1 on, and figures by name, as in a result line's ``history``."""


class Unlogged:
    """Keeps nothing: another process of the same run does."""

    def show(self, history: Sequence[Epoch]) -> None:
        """Do nothing."""


class JsonLines:
    """One JSON object an epoch on one line; the file is replaced whole, so follow it with ``tail -F``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def show(self, history: Sequence[Epoch]) -> None:
        """Write the file anew, durably.

        Raises:
            StorageError: The disk is full, read-only or failing; the old file stays.
        """
        lines = [json.dumps(entry, allow_nan=False) + "\n" for entry in history]
        write_atomically(self._path, "".join(lines).encode())


class TensorBoard:
    """Every figure of an epoch as a scalar at the epoch's number."""

    def __init__(self, directory: Path) -> None:
        """Begin an event file; what earlier attempts wrote is hidden, since all of it will be told again.

        Raises:
            MissingExtraError: tensorboard is not installed.
            StorageError: The directory cannot be written to.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                "TensorBoard is not installed", hint='pip install "bancache[tensorboard]"'
            ) from error
        make_directory(directory)
        with storage_errors(directory):
            self._writer = SummaryWriter(str(directory), purge_step=0)
        self._written: set[tuple[int, str]] = set()

    def show(self, history: Sequence[Epoch]) -> None:
        """Add what is new, and flush."""
        for entry in history:
            for name in entry.keys() - {"epoch"}:
                if (entry["epoch"], name) not in self._written:
                    self._writer.add_scalar(name, entry[name], entry["epoch"])
                    self._written.add((entry["epoch"], name))
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()


class _Both:
    def __init__(self, *logs: EpochLog) -> None:
        self._logs = logs

    def show(self, history: Sequence[Epoch]) -> None:
        for log in self._logs:
            log.show(history)


@contextmanager
def epoch_log(path: Path, tensorboard: Path | None = None) -> Iterator[EpochLog]:
    """Open a run's log: JSON lines at ``path``, and TensorBoard's events where a directory is named."""
    if tensorboard is None:
        yield JsonLines(path)
        return
    events = TensorBoard(tensorboard)
    try:
        yield _Both(JsonLines(path), events)
    finally:
        events.close()
