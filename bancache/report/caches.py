"""What the caches hold, how large they are, how close to their teachers, and how much time they saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bancache.report.families import generation_name, mean, mean_of, number
from bancache.report.formats import short
from bancache.report.results import Record

_MEANS = ("bytes", "bytes_per_entry", "images_per_second")
_KIND = ("generation", "samples", "views", "classes", "encoding")


class Saving(NamedTuple):
    """What one cache saved its students.

    Attributes:
        teacher: Column of the teacher.
        students: Number of models that were trained from the cache.
        dumped: (sample, view) pairs in the cache.
        read: (sample, view) pairs that the students were shown, over all epochs.
        rate: Images per second of the teacher during the dump.
    """

    teacher: str
    students: int
    dumped: float
    read: float
    rate: float


def dumps_of(records: Sequence[Record]) -> list[Record]:
    """Return the records of caches; of two records of the same cache the last one counts."""
    names = ("out", "generation", "seed", "encoding", "views")
    dumps = [record for record in records if record.get("kind") == "dump"]
    return list({repr([dump.get(name) for name in names]): dump for dump in dumps}.values())


def sizes(dumps: Sequence[Record]) -> list[dict[str, Any]]:
    """Return means over the caches of the same kind, which differ in their seed."""
    groups: dict[str, list[Record]] = {}
    for dump in dumps:
        groups.setdefault(repr([dump.get(name) for name in _KIND]), []).append(dump)
    return [
        {
            **{name: group[0].get(name) for name in _KIND},
            **{name: mean_of(group, name) for name in _MEANS},
            "teacher": generation_name(group[0].get("generation")),
            "seeds": ", ".join(str(dump["seed"]) for dump in group if "seed" in dump) or None,
            # A cache that was found complete took no time.
            "seconds": mean_of([dump for dump in group if number(dump.get("images_per_second"))], "seconds"),
        }
        for group in groups.values()
    ]


def fidelity(dumps: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the losses by encoding and temperature: means over the caches, and the worst pair of all."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for dump in dumps:
        for temperature, measures in _measured(dump.get("fidelity")):
            groups.setdefault((short(dump.get("encoding")) or "", temperature), []).append(measures)
    lines = []
    for (encoding, temperature), group in groups.items():
        worst = {
            name: max((v for one in group if (v := number(one.get(name))) is not None), default=None)
            for name in ("kl_p999", "kl_max")
        }
        means = {name: mean_of(group, name) for name in ("kl_mean", "argmax_agreement")}
        lines.append({"encoding": encoding, "temperature": temperature, **means, **worst})
    return lines


def savings(records: Sequence[Record]) -> list[Saving]:
    """Return what each cache saved that a student was trained from and whose dump's rate is known."""
    students: dict[str, list[Record]] = {}
    for record in records:
        lineage = record.get("lineage") if record.get("kind") == "run" else None
        last = lineage[-1] if isinstance(lineage, list) and lineage else None
        students.setdefault(str(last.get("cache") if isinstance(last, dict) else None), []).append(record)
    found: dict[str, Saving] = {}
    for dump in records:
        digest, teacher = str(dump.get("digest")), generation_name(dump.get("generation"))
        samples, views, rate = (number(dump.get(name)) for name in ("samples", "views", "images_per_second"))
        if dump.get("kind") == "dump" and dump.get("digest") and teacher and samples and views and rate:
            read = [_pairs_read(run, samples) for run in students.get(digest, ())]
            if read and all(read):
                found[digest] = Saving(teacher, len(read), samples * views, sum(read), rate)
    return list(found.values())


def mean_savings(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return means over the caches of each generation; times are in seconds."""
    groups: dict[tuple[str, int, float], list[Saving]] = {}
    for saving in savings(records):
        groups.setdefault(saving[:3], []).append(saving)
    return [
        {
            "teacher": teacher,
            "students": students,
            "dumped": dumped,
            "caches": len(group),
            "read": mean([one.read for one in group]),
            "rate": mean([one.rate for one in group]),
            "dump": mean([one.dumped / one.rate for one in group]),
            "online": mean([one.read / one.rate for one in group]),
            "saved": mean([(one.read - one.dumped) / one.rate for one in group]),
        }
        for (teacher, students, dumped), group in groups.items()
    ]


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
