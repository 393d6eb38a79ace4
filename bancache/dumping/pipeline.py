"""Filling a cache: the teacher answers one shard while the one before goes to disk in a thread behind it.

At most one finished shard is on its way, so memory does not grow. Within a shard nothing is reordered: the
thread does what the caller would have done, one shard after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from bancache.cache.layout import Shard
from bancache.cache.writer import CacheWriter
from bancache.dumping.schedule import Schedule
from bancache.system.progress import Progress, Stage
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt

_LOOK_EVERY_SECONDS = 0.2

Summarize = Callable[[list[dict[str, Any]]], dict[str, Any]]


class Answer(Protocol):
    """What a teacher said of a shard, perhaps still on its way from the device."""

    def collect(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the shard's fields as arrays, and what was found while making them."""


Ask = Callable[[Shard, Callable[[int], object]], Answer]


@dataclass(frozen=True)
class Filled:
    """What one process contributed.

    Attributes:
        entries: Views that it asked its teacher for.
        finished: Whether it, and no other, made the cache complete.
    """

    entries: int
    finished: bool


class BackgroundWriter:
    """A thread that does one thing at a time behind its caller, who is told of its errors when next he asks."""

    def __init__(self, waiting: Callable[[], object] = lambda: None) -> None:
        """Call ``waiting`` now and then while the caller has to wait."""
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[None] | None = None
        self._waiting = waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was begun; its error is the one that counts."""
        try:
            self.finish()
        finally:
            self._pool.shutdown()

    def put(self, work: Callable[[], None]) -> None:
        """Begin something, as soon as what was begun before is done."""
        self.finish()
        self._future = self._pool.submit(work)

    def finish(self) -> bool:
        """Wait until nothing is under way; return whether anything was.

        Raises:
            Exception: What the work raised.
        """
        future, self._future = self._future, None
        if future is None:
            return False
        while not wait([future], timeout=1.0).done:
            self._waiting()
        future.result()
        return True


def fill(
    writer: CacheWriter,
    ask: Ask,
    summarize: Summarize,
    *,
    place: Rank,
    progress: Progress,
    interrupt: Interrupt,
    recorded: Callable[[Shard], object] | None = None,
) -> Filled:
    """Do what is left of a cache, together with whoever else does, until it is complete.

    Args:
        writer: The cache, open.
        ask: Asks the teacher for a shard.
        summarize: Makes the manifest's summary from all shards' facts.
        place: Which of several helpers this is.
        progress: Is told of every batch.
        interrupt: Asked between shards.
        recorded: Is told of each shard that this process has made durable, in the thread behind.

    Raises:
        StoppedError: A stop was asked for; the shards that were begun are done.
    """
    layout, pending = writer.layout, writer.pending()
    total = layout.manifest.samples * layout.manifest.num_views
    done = total - sum(map(_entries, pending))
    if len(pending) < layout.count:
        progress.note(f"resuming: {layout.count - len(pending)} of {layout.count} shards are done")
    with (
        progress.stage("dump", total=total, unit="images", done=done) as stage,
        BackgroundWriter(writer.claims.touch) as behind,
    ):
        return _until_complete(writer, ask, summarize, place, stage, behind, interrupt, recorded)


def _until_complete(
    writer: CacheWriter,
    ask: Ask,
    summarize: Summarize,
    place: Rank,
    stage: Stage,
    behind: BackgroundWriter,
    interrupt: Interrupt,
    recorded: Callable[[Shard], object] | None,
) -> Filled:
    entries, waiting, count = 0, False, writer.layout.count

    def advance(amount: int) -> None:
        stage.advance(amount)
        writer.claims.touch()

    turns = Schedule(writer, place, lambda shard: stage.advance(_entries(shard)))
    while True:
        if interrupt.requested:
            behind.finish()
            turns = Schedule(writer, place)
        interrupt.check(f"{count - turns.left} of {count} shards")
        if shard := turns.next():
            behind.put(partial(_keep, writer, shard, ask(shard, advance), recorded))
            entries += _entries(shard)
        elif behind.finish():
            continue  # another shard may build on what is now recorded
        elif writer.is_complete():
            return Filled(entries, finished=False)
        elif not turns.left and writer.finish(summarize):
            return Filled(entries, finished=True)
        else:
            if not waiting:
                stage.note(f"waiting for others, who are at {turns.left} of {count} shards")
            waiting = True
            interrupt.wait(_LOOK_EVERY_SECONDS)
            turns = turns if turns.left else Schedule(writer, place)


def _keep(
    writer: CacheWriter, shard: Shard, answer: Answer, recorded: Callable[[Shard], object] | None
) -> None:
    fields, facts = answer.collect()
    writer.write_shard(shard, fields, facts)
    if recorded is not None:
        recorded(shard)


def _entries(shard: Shard) -> int:
    return shard.stop - shard.start
