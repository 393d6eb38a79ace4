"""One split on its way into a pack: read and decoded ahead by threads, appended in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.content import Known, Running
from bancache.sources.pack_format import PROLOGUE
from bancache.sources.pack_partial import LEFT_OUT, Partial, Record
from bancache.sources.pack_source import Expected, Packed, Packer, Source
from bancache.sources.pictures import unreadable_text
from bancache.sources.pixels import Content, UnreadableError
from bancache.system.read_ahead import in_order
from bancache.system.signals import Interrupt

_CHANGED = "the source changed while it was read; run the same command again"
Bad = list[tuple[str, UnreadableError]]


class _Item(NamedTuple):
    """A picture on its way: what the source gives, and its record and place if it is packed already."""

    number: int
    where: str
    content: Content
    record: Record | None
    start: int


@dataclass(frozen=True)
class Done:
    """A split that is packed.

    Attributes:
        known: Fingerprint and statistics.
        channels: Bytes of a pixel.
        records: Of the pictures that are not left out, ``(N,)`` of ``RECORDS``.
        labels: int64 ``(N,)``.
        paths: Where they come from, or None if the source does not say.
        notes: What was decided.
    """

    known: Known
    channels: int
    records: NDArray[Any]
    labels: NDArray[np.int64]
    paths: list[str] | None
    notes: list[str]


class SplitPacking:
    """Packs one split.

    Attributes:
        bad: The pictures that cannot be read, after ``append``.
    """

    def __init__(
        self, source: Source, expected: Expected, packer: Packer, begun: Partial, base: int, *, threads: int
    ) -> None:
        """Pack after ``base`` pictures of another split, which are all packed or left out."""
        self._source, self._expected, self._packer = source, expected, packer
        self._begun, self._base, self._threads = begun, base, threads
        self._start = PROLOGUE.size + int(begun.all()["length"][:base].sum())
        self._samples = len(source.pictures.labels)
        self._running = Running(self._samples, expected.pixels, expected.channels, expected.size)
        self._told, self._names = Counter[str](), list[str]()
        self.bad: Bad = []

    def append(self, interrupt: Interrupt, total: int) -> None:
        """Pack every picture that is not packed yet, and look at those that are.

        Raises:
            DataError: The source is not what it was, or gives no picture that can be read.
            StoppedError: A stop was requested.
        """
        request, index = self._source.request, -1
        done = min(max(self._begun.found - self._base, 0), self._samples)
        title = f"pack {request.name} {request.split}"
        with request.progress.stage(title, total=self._samples, unit="images") as stage:
            for item, packed in self._ahead(self._begun.found):
                index = item.number
                self._take(item, packed)
                stage.advance(1)
                if interrupt.requested:
                    self._begun.flush()
                    interrupt.check(f"{self._begun.count:,} of {total:,} pictures are packed")
        if index + 1 != self._samples or done > index + 1:
            raise DataError(
                f"{request.name}: {self._samples:,} labels, but {index + 1:,} images", hint=_CHANGED
            )

    def finish(self) -> Done:
        """Return the split, without the pictures that cannot be read."""
        running, request = self._running, self._source.request
        if len(self.bad) == self._samples:
            raise DataError(
                f"{request.name}: the {request.split} split has no images that can be read",
                hint="check the path",
            )
        if not running.is_like(seen := running.seen()):
            running = self._again(seen)  # pictures were left out or turned: the hash begins otherwise
        records = self._begun.all()[self._base : self._base + self._samples]
        good = records["length"] > 0
        pictures = self._source.pictures
        labels = pictures.labels[good]
        return Done(
            running.known(labels, pictures.classes),
            self._expected.channels,
            records[good],
            labels,
            self._names if pictures.named else None,
            [*pictures.notes, *self._notes(f"{request.name} {request.split}: ", running)],
        )

    def _ahead(self, packed: int) -> Iterator[tuple[_Item, Packed | UnreadableError]]:
        """Yield all pictures in order; the first ``packed`` of the pack come from there."""
        jobs = (partial(self._work, item) for item in self._items(packed))
        return in_order(jobs, ahead=2 * self._threads, threads=self._threads)

    def _items(self, packed: int) -> Iterator[_Item]:
        start = self._start
        for index, (where, content) in enumerate(self._source.pictures.stream()):
            at = self._base + index
            record = self._begun.record(at) if at < packed else None
            yield _Item(index, where, content, record, start)
            start += record.length if record else 0

    def _work(self, item: _Item) -> tuple[_Item, Packed | UnreadableError]:
        try:
            if item.record is None or not item.record.length:
                return item, self._packer.fresh(item.where, item.content)
            record = item.record
            data = self._begun.read(self._base + item.number, item.start)
            sides = record.height, record.width
            return item, self._packer.again(item.where, item.content, data, sides, record.sha256)
        except UnreadableError as error:
            return item, error

    def _take(self, item: _Item, packed: Packed | UnreadableError) -> None:
        is_bad = isinstance(packed, UnreadableError)
        if item.record is not None and is_bad != (not item.record.length):
            raise DataError(f"{item.where} was another picture before", hint=_CHANGED)
        if isinstance(packed, UnreadableError):
            self.bad.append((item.where, packed))
            if item.record is None:
                self._begun.add(LEFT_OUT)
            return
        self._told += packed.told
        self._names.append(self._source.name(item.where))
        self._running.add(packed.pixels, packed.sums)
        if item.record is None:
            height, width = packed.pixels.shape[:2]
            self._begun.add(Record(len(packed.data), height, width, packed.sha256), packed.data)

    def _again(self, seen: Running) -> Running:
        request = self._source.request
        title = f"hash {request.name} {request.split}"
        with request.progress.stage(title, total=self._samples, unit="images") as stage:
            for item, packed in self._ahead(self._begun.count):
                if isinstance(packed, Packed) and item.record and item.record.length:
                    seen.add(packed.pixels, packed.sums)
                stage.advance(1)
        return seen

    def _notes(self, start: str, running: Running) -> Iterator[str]:
        yield from (
            f"{start}{what}: {n:,} of {self._samples:,} pictures" for what, n in self._told.items() if n
        )
        if running.size is None:
            yield f"{start}pictures differ in size: each keeps its own"
        if self.bad:
            yield f"{start}left out, as {unreadable_text([where for where, _ in self.bad], self._samples)}"
