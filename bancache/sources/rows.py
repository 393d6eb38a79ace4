"""Rows of parquet and Arrow files in any order: the parts of files that were read last stay in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.sources.arrow_files import group_rows, read_group
from bancache.system.memory import free_on_host
from bancache.system.ranks import processes_here

_SHARE = 8  # of the free memory


class Rows:
    """Returns the image of any row, and reads the whole row group that it is in.

    In order, each row group is read once. In random order, each row costs a row group, unless that is still in memory.
    """

    def __init__(self, columns: Sequence[tuple[Path, str]]) -> None:
        """Read these columns of files, one file after another."""
        self._columns = columns
        self._bound, self._held = free_on_host() // (_SHARE * processes_here()), 0
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, index: int) -> tuple[str, bytes]:
        """Return the file and row of a number, and the encoded image there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        which, group, first = self._groups[number]
        row = index - (int(self._ends[number - 1]) if number else 0)
        file, path = self._columns[which]
        with self._lock:  # one at a time: what one thread reads, the next one wants
            values = self._kept.get(number)
            if values is None:
                values = self._kept[number] = read_group(file, group, path)
                self._held += _bytes(values)
                while len(self._kept) > 1 and self._held > self._bound:
                    self._held -= _bytes(self._kept.popitem(last=False)[1])
            self._kept.move_to_end(number)
        return f"{file} row {first + row}", values[row].as_py() or b""

    @cached_property
    def _groups(self) -> list[tuple[int, int, int]]:
        """The number of the file, that of the group in it, and the group's first row there."""
        found = []
        for which, counts in enumerate(self._counts):
            starts = np.cumsum([0, *counts])
            found += [(which, group, int(starts[group])) for group in range(len(counts))]
        return found

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([count for counts in self._counts for count in counts])

    @cached_property
    def _counts(self) -> list[list[int]]:
        return [group_rows(file) for file, _ in self._columns]

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._kept.clear()
            self._held = 0


def _bytes(values: list[Any]) -> int:
    return sum(value.as_buffer().size for value in values if value.is_valid)
