"""The part of the page about caches: what they hold, how large they are, how true to their teachers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bancache.report.families import BASELINE, mean_of, number
from bancache.report.finding import percent
from bancache.report.listings import (
    Column,
    count,
    decimals,
    duration,
    listing,
    scientific,
    section,
    short,
    size,
)
from bancache.report.markup import Markup
from bancache.report.results import Record


def caches_section(records: Sequence[Record]) -> Markup | None:
    """List the caches, and what each encoding loses; of two records of the same cache the last one counts.

    Caches of several seeds that hold as much of the same kind share a line.
    """
    dumps = list({_identity(record): record for record in records if record.get("kind") == "dump"}.values())
    if not dumps:
        return None
    total = sum(number(dump.get("bytes")) or 0.0 for dump in dumps)
    held = f"{len(dumps)} caches, {size(total)} in all; numbers are means. " if len(dumps) > 1 else ""
    note = f"{held}An entry is the teacher's answer to one view of one image."
    return section("Caches", _sizes(dumps), _fidelity(dumps), note=note)


def _sizes(dumps: Sequence[Record]) -> Markup | None:
    groups: dict[str, list[Record]] = {}
    for dump in dumps:
        kind = [dump.get(name) for name in ("generation", "samples", "views", "classes", "encoding")]
        groups.setdefault(repr(kind), []).append(dump)
    lines = list(groups.values())
    columns = [
        Column("teacher", [_teacher(line[0]) for line in lines], "text"),
        Column("seeds", [", ".join(str(d["seed"]) for d in line if "seed" in d) or None for line in lines]),
        Column("images", [count(line[0].get("samples")) for line in lines]),
        Column("views", [count(line[0].get("views")) for line in lines]),
        Column("classes", [count(line[0].get("classes")) for line in lines]),
        Column("encoding", [short(line[0].get("encoding")) for line in lines], "text"),
        Column("size", [size(mean_of(line, "bytes")) for line in lines]),
        Column("bytes per entry", [decimals(mean_of(line, "bytes_per_entry"), ".2f") for line in lines]),
        Column("images/s", [count(mean_of(line, "images_per_second")) for line in lines]),
        Column("time", [duration(mean_of(_timed(line), "seconds")) for line in lines]),
    ]
    return listing("Caches", columns)


def _timed(dumps: Sequence[Record]) -> list[Record]:
    """Leave out those that were found done already, which took no time."""
    return [dump for dump in dumps if number(dump.get("images_per_second"))]


def _fidelity(dumps: Sequence[Record]) -> Markup | None:
    """Sum up by encoding and temperature: means over the caches, and the worst entry of all of them."""
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for dump in dumps:
        for temperature, measures in _measured(dump).items():
            groups.setdefault((short(dump.get("encoding")) or "", temperature), []).append(measures)
    if not groups:
        return None
    return listing(
        "Fidelity",
        [
            Column("what an encoding loses", [encoding for encoding, _ in groups], "text"),
            Column("temperature", [f"{temperature:g}" for _, temperature in groups]),
            Column(
                "mean KL, nats", [_kl_of(group, "kl_mean", statistics.fmean) for group in groups.values()]
            ),
            Column("99.9 % below", [_kl_of(group, "kl_p999", max) for group in groups.values()]),
            Column("worst entry", [_kl_of(group, "kl_max", max) for group in groups.values()]),
            Column("same top class", [_agreement(group) for group in groups.values()]),
        ],
    )


def _measured(dump: Record) -> dict[float, Mapping[str, Any]]:
    """Give what was measured of a cache's fidelity by temperature, nothing where it was not."""
    fidelity = dump.get("fidelity")
    found: dict[float, Mapping[str, Any]] = {}
    for key, measures in fidelity.items() if isinstance(fidelity, dict) else ():
        try:
            temperature = float(key)
        except ValueError:
            continue
        if isinstance(measures, dict):
            found[temperature] = measures
    return found


def _kl_of(
    group: Sequence[Mapping[str, Any]], name: str, summary: Callable[[list[float]], float]
) -> str | None:
    values = [value for measures in group if (value := number(measures.get(name))) is not None]
    return scientific(summary(values)) if values else None


def _agreement(group: Sequence[Mapping[str, Any]]) -> str | None:
    values = [v for measures in group if (v := number(measures.get("argmax_agreement"))) is not None]
    return percent(statistics.fmean(values), 3) if values else None


def _teacher(dump: Record) -> str | None:
    generation = dump.get("generation")
    if not isinstance(generation, int):
        return None
    return f"BAN-{generation}" if generation else BASELINE


def _identity(dump: Record) -> str:
    return repr([dump.get(name) for name in ("out", "generation", "seed", "encoding", "views")])
