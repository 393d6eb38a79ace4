"""The part of the page that says what a cache saved: the time that its teacher would have taken at every step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bancache.report.families import BASELINE, number
from bancache.report.finding import typeset
from bancache.report.listings import Column, count, duration, listing, section
from bancache.report.markup import Markup
from bancache.report.results import Record

_NOTE = (
    "saved = (entries read − entries dumped) ÷ rate. Online, the teacher would answer every view that a student is "
    "shown; the cache asked it once for each entry. The rate is the teacher's images a second during its dump, which "
    "also encodes and writes, so a saving is an upper bound. A student that reads each entry once saves nothing: the "
    "second epoch over the same views does, and the second student."
)


@dataclass(frozen=True)
class Saving:
    """What one cache spared its students.

    Attributes:
        generation: Of the teacher.
        students: Nets that were taught from it.
        dumped: Entries, each asked of the teacher once.
        read: Entries that the students were shown, over all epochs.
        rate: The teacher's images a second during the dump.
    """

    generation: int
    students: int
    dumped: float
    read: float
    rate: float

    @property
    def dump_seconds(self) -> float:
        """What the cache cost."""
        return self.dumped / self.rate

    @property
    def online_seconds(self) -> float:
        """What the teacher would have cost beside its students."""
        return self.read / self.rate

    @property
    def seconds(self) -> float:
        """What is left; negative where the cache cost more."""
        return self.online_seconds - self.dump_seconds


def savings_of(records: Sequence[Record]) -> list[Saving]:
    """Give the saving of each cache that a student was taught from and whose dump's rate is known."""
    students: dict[str, list[Record]] = {}
    for record in records:
        if (digest := _cache_of(record)) is not None:
            students.setdefault(digest, []).append(record)
    found: dict[str, Saving] = {}
    for record in records:
        digest, generation = str(record.get("digest")), record.get("generation")
        samples, views = number(record.get("samples")), number(record.get("views"))
        rate = number(record.get("images_per_second"))
        if record.get("kind") != "dump" or digest not in students or not isinstance(generation, int):
            continue
        read = [_entries_read(run, samples) for run in students[digest]] if samples else []
        if samples and views and rate and all(read):
            found[digest] = Saving(generation, len(read), samples * views, sum(read), rate)
    return list(found.values())


def savings_section(records: Sequence[Record]) -> Markup | None:
    """List what the caches of each generation saved, as means over the seeds."""
    groups: dict[tuple[int, int, float], list[Saving]] = {}
    for saving in savings_of(records):
        groups.setdefault((saving.generation, saving.students, saving.dumped), []).append(saving)
    if not groups:
        return None
    lines = list(groups.values())
    columns = [
        Column("teacher", [f"BAN-{g}" if g else BASELINE for g, _, _ in groups], "text"),
        Column("caches", [str(len(line)) for line in lines]),
        Column("students of each", [str(students) for _, students, _ in groups]),
        Column("entries dumped", [count(dumped) for _, _, dumped in groups]),
        Column("entries read", [count(statistics.fmean(s.read for s in line)) for line in lines]),
        Column("rate, images/s", [count(statistics.fmean(s.rate for s in line)) for line in lines]),
        Column("dump", [_time([s.dump_seconds for s in line]) for line in lines]),
        Column("teacher online", [_time([s.online_seconds for s in line]) for line in lines]),
        Column("saved", [_time([s.seconds for s in line]) for line in lines]),
    ]
    return section("Time saved", listing("Time saved", columns), note=_NOTE)


def _cache_of(record: Record) -> str | None:
    """Give the digest of the cache that a run was taught from, None for a run without a teacher."""
    lineage = record.get("lineage") if record.get("kind") == "run" else None
    last = lineage[-1] if isinstance(lineage, list) and lineage else None
    digest = last.get("cache") if isinstance(last, dict) else None
    return digest if isinstance(digest, str) else None


def _entries_read(run: Record, samples: float) -> float:
    """Give how many views a student was shown: whole batches only, in every epoch; 0 where that is not known."""
    recipe = run.get("recipe")
    batch = number(recipe.get("batch_size")) if isinstance(recipe, dict) else None
    batch = min(batch, samples) if batch else samples
    return (number(run.get("epochs")) or 0.0) * (samples // batch) * batch


def _time(seconds: Sequence[float]) -> str:
    mean = statistics.fmean(seconds)
    return typeset(f"{'-' if mean < -0.05 else ''}{duration(abs(mean))}")
