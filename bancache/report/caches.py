"""What the caches hold, how large they are, how close to their teachers, and how much time they saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bancache.report.families import averaged, dicts_in, generation_name, grouped, mean_of, number
from bancache.report.formats import short
from bancache.report.results import Record

_MEANS = ("bytes", "bytes_per_entry", "images_per_second")
_KIND = ("teacher", "generation", "samples", "views", "classes", "encoding")


def dumps_of(records: Sequence[Record]) -> list[Record]:
    """Return the records of caches; of two records of the same cache the last one counts."""
    names = ("out", "generation", "seed", "encoding", "views")
    dumps = [record for record in records if record.get("kind") == "dump"]
    return list({repr([dump.get(name) for name in names]): dump for dump in dumps}.values())


def sizes(dumps: Sequence[Record]) -> list[Record]:
    """Return means over the caches of the same kind, which differ in their seed."""
    lines = averaged(dumps, _KIND, _MEANS)
    for line in lines:
        line["teacher"] = _teacher(line)
        line["seeds"] = ", ".join(str(dump["seed"]) for dump in line["lines"] if "seed" in dump) or None
        # A cache that was found complete took no time.
        timed = [dump for dump in line["lines"] if number(dump.get("images_per_second"))]
        line["seconds"] = mean_of(timed, "seconds")
    return lines


def fidelity(dumps: Sequence[Record]) -> list[Record]:
    """Return the losses by encoding and temperature: means over the caches, and the worst pair of all."""
    measured = [
        {**measures, "encoding": short(dump.get("encoding")) or "", "temperature": temperature}
        for dump in dumps
        for temperature, measures in _measured(dump.get("fidelity"))
    ]
    lines = averaged(measured, ("encoding", "temperature"), ("kl_mean", "argmax_agreement"))
    for line in lines:
        for name in ("kl_p999", "kl_max"):
            values = [number(one.get(name)) for one in line["lines"]]
            line[name] = max((value for value in values if value is not None), default=None)
    return lines


def savings(records: Sequence[Record]) -> list[Record]:
    """Return what each cache saved that a student was trained from and whose dump's rate is known.

    Each has the (sample, view) pairs ``dumped``, those ``read`` by its students over all epochs, the ``rate`` of the
    teacher in images per second, and the times in seconds that follow.
    """
    students = grouped((record for record in records if record.get("kind") == "run"), cache_of)
    found: dict[str, Record] = {}
    for dump in records:
        digest, teacher = str(dump.get("digest")), _teacher(dump)
        samples, views, rate = (number(dump.get(name)) for name in ("samples", "views", "images_per_second"))
        if dump.get("kind") == "dump" and dump.get("digest") and teacher and samples and views and rate:
            pairs = [_pairs_read(run, samples) for run in students.get(digest, ())]
            if pairs and all(pairs):
                read, dumped = sum(pairs), samples * views
                times = {"dump": dumped / rate, "online": read / rate, "saved": (read - dumped) / rate}
                line = {
                    "teacher": teacher,
                    "students": len(pairs),
                    "dumped": dumped,
                    "read": read,
                    "rate": rate,
                }
                found[digest] = line | times
    return list(found.values())


def mean_savings(records: Sequence[Record]) -> list[Record]:
    """Return means over the caches of each generation."""
    means = ("read", "rate", "dump", "online", "saved")
    return averaged(savings(records), ("teacher", "students", "dumped"), means)


def cache_of(run: Record) -> str:
    """Return the digest of the cache that a student was trained from."""
    return str([None, *(link.get("cache") for link in dicts_in(run, "lineage"))][-1])


def _teacher(dump: Record) -> str | None:
    """Return the name of a cache's teacher; older lines, and those of `bancache dump`, have its generation only."""
    return str(dump["teacher"]) if dump.get("teacher") else generation_name(dump.get("generation"))


def _measured(fidelity: object) -> Iterator[tuple[float, dict[str, Any]]]:
    for key, measures in fidelity.items() if isinstance(fidelity, dict) else ():
        try:
            temperature = float(key)
        except ValueError:
            continue
        if isinstance(measures, dict):
            yield temperature, measures


def _pairs_read(run: Record, samples: float) -> float:
    """Return how many pairs a student was shown: whole batches only, in every epoch; 0 if unknown."""
    recipe = run.get("recipe")
    batch = number(recipe.get("batch_size")) if isinstance(recipe, dict) else None
    batch = min(batch, samples) if batch else samples
    return (number(run.get("epochs")) or 0.0) * (samples // batch) * batch
