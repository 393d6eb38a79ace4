"""Fill a cache by the workers of an engine.

This process begins the cache, claims shards, gives a bounded number of them to the workers, and completes the cache. The
records on disk say what is done: a worker that died, or a scheduler, leaves nothing that anybody has to know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from bancache.cache.layout import Shard
from bancache.cache.remote_writer import Writer
from bancache.cache.writer import Summarize
from bancache.cluster.engine import Engine
from bancache.cluster.tasks import Origin, Outcome, attempt, own_versions, write_shard
from bancache.dumping.pipeline import Filled, Schedule, dump_stage, pairs_of
from bancache.dumping.prepare import Binding
from bancache.dumping.run import DumpResult, carry_out
from bancache.errors import BancacheError, ClusterError
from bancache.system.progress import Progress, Stage
from bancache.system.ranks import ALONE, Rank
from bancache.system.signals import Interrupt

_LOOK_EVERY_SECONDS = 0.2
# A network file system may show a record a minute late.
_SHOWN_SECONDS = 120.0


@dataclass(frozen=True)
class Planned:
    """What a worker decided for all shards of a cache, and what it wants to say about it.

    Where pictures are ``streamed``, all views of a block of samples come one after another: each worker decodes them once.
    """

    binding: Binding
    origin: Origin
    facts: dict[str, Any]
    environment: dict[str, Any]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    streamed: bool = False


def ask(
    engine: Engine, task: Callable[..., Any], *args: Any, progress: Progress, interrupt: Interrupt
) -> Any:
    """Run one task on a worker and return what it returned; errors are the task's, with the worker's host."""
    future, waiting = engine.executor.submit(attempt, own_versions(), task, *args), False
    while not future.done():
        if not engine.slots() and not waiting:
            waiting = True
            progress.log("waiting for workers")
        interrupt.wait(_LOOK_EVERY_SECONDS)
        interrupt.check("nothing is begun")
    return outcome_of(engine, future, "the plan").value


def dump_by(
    engine: Engine,
    planned: Planned,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    rank: Rank = ALONE,
    force: bool = False,
    mixed: bool = False,
    progress: Progress,
    interrupt: Interrupt,
    started: float,
) -> DumpResult:
    """Write a cache by the workers of an engine, together with other processes that do; continue an unfinished one.

    Arguments and errors are those of ``dump``; also ClusterError where workers or their scheduler fail.
    """

    def write(writer: Writer, summarize: Summarize) -> Filled:
        return _Filling(engine, writer, planned, rank, progress, interrupt).run(summarize)

    return carry_out(
        planned.binding,
        out,
        write,
        started=started,
        overwrite=overwrite,
        join=not overwrite,
        force=force,
        mixed=mixed,
        progress=progress,
    )


class _Filling:
    """The shards of one cache that are under way."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        planned: Planned,
        rank: Rank,
        progress: Progress,
        interrupt: Interrupt,
    ) -> None:
        self._engine, self._writer = engine, writer
        self._schedule = partial(Schedule, writer, rank, by_image=planned.streamed)
        self._progress, self._interrupt = progress, interrupt
        self._task = (write_shard, str(writer.path.absolute()), writer.layout.manifest.fingerprint)
        self._origin, self._versions = planned.origin, own_versions()
        self._under_way: dict[Future[Outcome], Shard] = {}
        self._done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        # Done, but their records are not to be seen here yet: the worker's host, and since when.
        self._unseen: dict[Shard, tuple[str, float]] = {}
        self._num_pairs = 0

    def run(self, summarize: Summarize) -> Filled:
        """Have every shard done that is left, and complete the cache."""
        with dump_stage(self._writer, self._progress) as stage:
            return self._fill(stage, summarize)

    def _fill(self, stage: Stage, summarize: Summarize) -> Filled:
        writer, said = self._writer, ""
        schedule = self._schedule(lambda shard: stage.advance(pairs_of(shard)))
        while True:
            if not self._interrupt.requested:
                for shard in self._wanted(schedule):
                    self._submit(shard)
            idle = not self._under_way and not self._unseen
            if self._interrupt.requested and (idle or not self._engine.slots()):
                left = len(writer.pending())
                self._interrupt.check(f"{writer.layout.count - left} of {writer.layout.count} shards")
            if not idle:
                self._collect(stage)
                continue
            if writer.is_complete():
                return Filled(self._num_pairs, finished=False)
            if not schedule.left and writer.finish(summarize):
                return Filled(self._num_pairs, finished=True)
            why = "workers" if not self._engine.slots() else "other processes"
            if why != said:
                stage.log(f"waiting for {why}: {schedule.left} of {writer.layout.count} shards are left")
            said = why
            self._interrupt.wait(_LOOK_EVERY_SECONDS)
            if not schedule.left:
                schedule = self._schedule()

    def _wanted(self, schedule: Schedule) -> Iterator[Shard]:
        """Claim a shard for each worker that has none, and one in four more, which it begins at once."""
        slots = self._engine.slots()
        most = slots + -(-slots // 4)
        while len(self._under_way) < most and (shard := schedule.next()):
            yield shard

    def _submit(self, shard: Shard) -> None:
        future = self._engine.executor.submit(attempt, self._versions, *self._task, shard.index, self._origin)
        self._under_way[future] = shard
        future.add_done_callback(self._done.put)

    def _collect(self, stage: Stage) -> None:
        """Wait a moment for a task to end, and look for the records of those that did."""
        self._writer.claims.touch()
        try:
            future = self._done.get(timeout=_LOOK_EVERY_SECONDS)
            shard = self._under_way.pop(future)
            outcome = outcome_of(self._engine, future, str(shard))
            self._unseen[shard] = outcome.host, time.monotonic()
            self._num_pairs += pairs_of(shard) if outcome.value.wrote else 0
            for warning in outcome.value.warnings:
                self._progress.warn(f"{outcome.host}: {warning}")
        except Empty:
            self._engine.slots()  # says which workers are gone
        for shard, (host, since) in list(self._unseen.items()):
            if self._writer.trust(shard) or self._writer.is_complete():
                del self._unseen[shard]
                self._writer.claims.release(shard.index)
                stage.advance(pairs_of(shard))
            elif time.monotonic() - since > _SHOWN_SECONDS:
                raise ClusterError(
                    f"{host} has done {shard}, and {self._writer.path} has no record of it here",
                    hint="all workers must see the same folder under the same path, or the same object store",
                )


def outcome_of(engine: Engine, future: Future[Outcome], what: str) -> Outcome:
    """Return what a task ended with, or raise its error."""
    error: BaseException | None
    if future.cancelled():
        error = engine.explain(CancelledError())
    elif (error := future.exception()) is not None:
        error = engine.explain(error)
    elif (failed := future.result().error) is not None:
        raise _at(failed, f"{what}, on {future.result().host}")
    if isinstance(error, BancacheError):
        raise _at(error, what)
    if error is not None:
        raise error
    return future.result()


def _at(error: BancacheError, where: str) -> BancacheError:
    """Return an error with the place where it happened in its message."""
    error.args = (f"{error} ({where})",)
    return error
