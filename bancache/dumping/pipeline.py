"""Fill a cache: the teacher runs on one shard while threads write the ones before it.

At most as many shards wait to be written as there are threads, so memory does not grow. One thread is enough for a CPU.
For a GPU it is not: it spends its time waiting until the disk has what it wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from bancache.cache.layout import Shard
from bancache.cache.remote_writer import Writer
from bancache.cache.writer import Summarize
from bancache.dumping.forward import Advance, Collect
from bancache.system.progress import Progress, Stage
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt

_LOOK_EVERY_SECONDS = 0.2

Forward = Callable[[Shard, Advance], Collect]


@dataclass(frozen=True)
class Filled:
    """The contribution of one process: pairs that its teacher was run on, and whether it completed the cache."""

    num_pairs: int
    finished: bool


class BackgroundWriter:
    """Threads that do one piece of work each at a time; their errors are raised in the caller's next call."""

    def __init__(self, waiting: Callable[[], object] = lambda: None, *, threads: int = 1) -> None:
        """Call ``waiting`` every second while the caller waits for a thread."""
        self._pool, self._threads = ThreadPoolExecutor(threads), threads
        self._futures: set[Future[None]] = set()
        self._waiting = waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the work under way; its error replaces the caller's."""
        try:
            self.finish()
        finally:
            self._pool.shutdown()

    def put(self, work: Callable[[], None]) -> None:
        """Wait until a thread is free, then give it the work."""
        self._wait_until_under_way(self._threads - 1)
        self._futures.add(self._pool.submit(work))

    def finish(self) -> bool:
        """Wait for the work under way and raise its error; return whether there was any work."""
        return self._wait_until_under_way(0)

    def _wait_until_under_way(self, most: int) -> bool:
        """Wait until at most so many pieces of work are not done; return whether there was any work."""
        any_work, timeout = bool(self._futures), 0.0
        while self._futures and (len(self._futures) > most or not timeout):
            done, self._futures = wait(self._futures, timeout, FIRST_COMPLETED)
            for future in done:
                future.result()
            if timeout and not done:
                self._waiting()
            timeout = 1.0
        return any_work


class Schedule:
    """The shards that are left, in the order in which this process tries them.

    Its own share is every count-th shard from its rank on, so processes rarely want the same shard. By image, it is every
    count-th block of samples, with all views of a block one after another.
    """

    def __init__(
        self,
        writer: Writer,
        rank: Rank,
        on_done: Callable[[Shard], object] = lambda shard: None,
        *,
        by_image: bool = False,
    ) -> None:
        """Begin with the shards without a record; ``on_done`` is called with each one that others record."""
        self._writer, self._on_done, self._by_image = writer, on_done, by_image
        self._begun: set[int] = set()

        def place(shard: Shard) -> int:
            return shard.block if by_image else shard.index

        pending = sorted(writer.pending(), key=place)  # stable: the views of a block stay in order
        own = [shard for shard in pending if place(shard) % rank.count == rank.rank]
        rest = [shard for shard in pending if place(shard) % rank.count != rank.rank]
        begin = len(rest) * rank.rank // rank.count
        self._left = deque((*own, *rest[begin:], *rest[:begin]))

    @property
    def left(self) -> int:
        """Number of shards that ``next`` has not returned and that had no record at the last look."""
        return len(self._left)

    def next(self) -> Shard | None:
        """Claim a shard and return it.

        Returns None while each shard is done, claimed by another process, or needs one that is not done; by image also
        while the next one of the block needs one that this process still writes.
        """
        for _ in range(len(self._left)):
            shard = self._left.popleft()
            if self._is_done(shard):
                continue
            if not (is_ready := self._writer.is_ready(shard)) and self._by_image:
                required = self._writer.layout.requires(shard)
                if required is not None and required.index in self._begun:
                    self._left.appendleft(shard)
                    return None
            if is_ready and self._writer.claims.take(shard.index):
                # Another process may have recorded it and released its claim since the check above.
                if not self._is_done(shard):
                    self._begun.add(shard.index)
                    return shard
                self._writer.claims.release(shard.index)
            else:
                self._left.append(shard)  # it is looked at again after all others
        return None

    def _is_done(self, shard: Shard) -> bool:
        done = self._writer.is_recorded(shard)
        if done:
            self._on_done(shard)
        return done


def fill(
    writer: Writer,
    forward: Forward,
    summarize: Summarize,
    rank: Rank,
    progress: Progress,
    interrupt: Interrupt,
    *,
    threads: int = 1,
    by_image: bool = False,
) -> Filled:
    """Write the missing shards of a cache, together with other processes, until it is complete.

    ``forward`` runs the teacher on a shard, ``summarize`` makes the manifest's summary from the facts of all shards.
    ``threads`` write. ``by_image`` takes all views of a block of samples one after another.

    Raises:
        StoppedError: ``interrupt`` was set; the shards that were begun are done.
    """
    count = writer.layout.count
    with (
        dump_stage(writer, progress) as stage,
        BackgroundWriter(writer.claims.touch, threads=threads) as background,
    ):

        def advance(amount: int) -> None:
            stage.advance(amount)
            writer.claims.touch()

        num_pairs, waiting = 0, False
        opened = partial(Schedule, writer, rank, by_image=by_image)
        schedule = opened(lambda shard: stage.advance(pairs_of(shard)))
        while True:
            if interrupt.requested:
                background.finish()
                schedule = opened()
            interrupt.check(f"{count - schedule.left} of {count} shards")
            if shard := schedule.next():
                background.put(partial(_write, writer, shard, forward(shard, advance)))
                num_pairs += pairs_of(shard)
            elif background.finish():
                continue  # the shard that is now recorded may be what another one needs
            elif writer.is_complete():
                return Filled(num_pairs, finished=False)
            elif not schedule.left and writer.finish(summarize, stage.log):
                return Filled(num_pairs, finished=True)
            elif not schedule.left and (schedule := opened()).left:
                stage.log(
                    f"{schedule.left} of {count} shards are not as they were recorded; they are written again"
                )
            else:
                if not waiting:
                    stage.log(f"waiting for other processes: {schedule.left} of {count} shards are left")
                waiting = True
                interrupt.wait(_LOOK_EVERY_SECONDS)


def dump_stage(writer: Writer, progress: Progress) -> AbstractContextManager[Stage]:
    """Begin the stage of a dump, and say how far an earlier run came."""
    pending, manifest, count = writer.pending(), writer.layout.manifest, writer.layout.count
    if len(pending) < count:
        progress.log(f"resuming: {count - len(pending)} of {count} shards are done")
    total = manifest.samples * manifest.num_views
    return progress.stage("dump", total=total, unit="images", done=total - sum(map(pairs_of, pending)))


def _write(writer: Writer, shard: Shard, collect: Collect) -> None:
    writer.write_shard(shard, *collect())


def pairs_of(shard: Shard) -> int:
    """Return the number of (sample, view) pairs of a shard."""
    return shard.stop - shard.start
