"""Result lines sorted into families: the models of one architecture, loss and cache size, over generations.

A family is a row of the paper's Table 1. Its columns are the baseline (generation 0, trained on labels), BAN-1,
BAN-2 and so on, then the ensembles. Controls (models without a teacher) stand beside them. This module
validates the records: it refuses wrong values, turns missing ones into None, and no later module checks again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from bancache.errors import DataError
from bancache.report.results import Record

BASELINE, TEACHER = "baseline", "teacher"
# What students are compared with: generation 0, or the teacher that a sequence began with.
FIRST = (BASELINE, TEACHER)
T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True)
class Result:
    """One model or one ensemble on the test images, with its result line for values that may be missing.

    Its column is ``baseline`` (``teacher`` if that was there already), ``BAN-1`` or ``Ens*2``; of controls ``labels-1``,
    ``weight-2`` or ``Ctl*2``. The rank orders columns: models by generation, then ensembles by size; controls likewise.
    """

    column: str
    rank: tuple[int, int, str]
    seed: int
    error: float
    record: Record


class Key(NamedTuple):
    """What the results of one family share; ``num_views`` is None without a cache."""

    data: str
    model: str
    loss: str
    num_views: int | None


Columns = Mapping[str, Sequence[Result]]


class Family(NamedTuple):
    """The results of one key and the controls of its model and data.

    Columns are in the table's order, results by seed, each seed of a column once.
    """

    key: Key
    columns: Columns
    controls: Columns


_Found = dict[Key, dict[tuple[str, int], Result]]


def sort_families(records: Sequence[Record]) -> tuple[Family, ...]:
    """Sort runs and ensembles into families; of two records of the same thing the last one counts.

    Generation 0 serves every family of its model and data as the baseline. If it was recorded under
    several losses, a family takes its own loss or else the first. Generation 0 without students stands alone.
    A wrong generation, seed or test error raises DataError.
    """
    found: _Found = {}
    controls: _Found = {}
    runs: list[tuple[Key, Result]] = []
    for result in _results(records):
        record, target = result.record, found
        if _is_control(record):
            key, target = _control_key(record, controls), controls
        elif record["kind"] in ("run", "teacher"):
            key = _run_key(record)
            runs.append((key, result))
        else:
            # An ensemble belongs to the latest run before it that can be its member.
            key = next((key for key, run in reversed(runs) if _can_be_member(key, run, record)), None)
        if key is not None:
            target.setdefault(key, {})[result.column, result.seed] = result
    return tuple(
        Family(key, _by_column(results.values()), _by_column(controls.get(_shared(key), {}).values()))
        for key, results in _with_baselines(found).items()
    )


def arm_results(records: Sequence[Record]) -> dict[str, list[Result]]:
    """Return the results of each arm of a study by seed; of two records of one arm and seed the last one counts.

    A wrong seed or test error raises DataError.
    """
    found: dict[str, dict[int, Result]] = {}
    for position, record in enumerate(records, 1):
        if record.get("kind") == "arm":
            name, seed = str(record.get("name")), _whole(record, "seed", position)
            result = Result(name, (0, 0, name), seed, _test_error(record, position), record)
            found.setdefault(name, {})[seed] = result
    return {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in found.items()}


def number(value: object) -> float | None:
    """Return a number as a float; None for anything else, and for what sums, products or quotients could not hold."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if value == 0 or 1e-60 < abs(value) < 1e60 else None
    return None


def mean_of(records: Sequence[Record], name: str) -> float | None:
    """Return the mean of a number over the records that have it; None if none has."""
    values = [value for record in records if (value := number(record.get(name))) is not None]
    return statistics.fmean(values) if values else None


def mean_test(results: Sequence[Result], name: str) -> float | None:
    """Return the mean of a number of the tests, such as ``nll``, over those that have it; None if none has."""
    return mean_of([result.record["test"] for result in results], name)


def generation_name(generation: object) -> str | None:
    """Return the column of a generation: ``baseline`` for 0, ``BAN-1`` for 1; None for anything but an int."""
    if not isinstance(generation, int):
        return None
    return f"BAN-{generation}" if generation else BASELINE


def grouped(values: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return lists of the values that have the same key, in order."""
    groups: dict[K, list[T]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def averaged(lines: Sequence[Record], same: Sequence[str], means: Sequence[str]) -> list[Record]:
    """Return one line for all that have the ``same`` values: these, the means of others, and all as ``lines``."""
    return [
        {name: group[0].get(name) for name in same}
        | {name: mean_of(group, name) for name in means}
        | {"lines": group}
        for group in grouped(lines, lambda line: repr([line.get(name) for name in same])).values()
    ]


def list_in(record: Record, name: str) -> list[object]:
    """Return the list of a name in a record; an empty one if there is none."""
    value = record.get(name)
    return value if isinstance(value, list) else []


def dict_in(record: Record, name: str) -> Record:
    """Return the object of a name in a record; an empty one if there is none."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def dicts_in(record: Record, name: str) -> list[Record]:
    """Return the objects of a list in a record; an empty list if there is none."""
    return [value for value in list_in(record, name) if isinstance(value, dict)]


def _by_column(results: Iterable[Result]) -> Columns:
    ordered = sorted(results, key=lambda result: (result.rank, result.seed))
    return grouped(ordered, lambda result: result.column)


def _with_baselines(found: _Found) -> _Found:
    """Put generation 0 into the families of its model and data, if there are any."""
    founders = [key for key, results in found.items() if all(column in FIRST for column, _ in results)]
    families = {key: results for key, results in found.items() if key not in founders}
    served = set()
    for key in families:
        fitting = [founder for founder in founders if founder[:2] == key[:2]]
        # sorted() is stable: first the one of the family's own loss, then in order of the records.
        for founder in sorted(fitting, key=lambda founder: founder.loss != key.loss)[:1]:
            served.add(founder)
            families[key] = {**found[founder], **found[key]}
    return {**{key: found[key] for key in founders if key not in served}, **families}


def _results(records: Sequence[Record]) -> Iterator[Result]:
    for position, record in enumerate(records, 1):
        if record.get("kind") == "run":
            generation = _whole(record, "generation", position)
            column, rank = str(generation_name(generation)), (0, generation, "")
        elif record.get("kind") == "teacher":
            column, rank = TEACHER, (0, 0, "")
        elif record.get("kind") == "ensemble":
            column = str(record.get("name", "ensemble"))
            rank = (1, len(list_in(record, "members" if _is_control(record) else "generations")), column)
        elif record.get("kind") == "control":
            role, member = str(record.get("role", "labels")), _whole(record, "member", position)
            column, rank = (
                (f"labels-{member}", (0, member, role)) if role == "labels" else (role, (1, 0, role))
            )
        else:
            continue
        yield Result(column, rank, _whole(record, "seed", position), _test_error(record, position), record)


def _whole(record: Record, name: str, position: int) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or (value < 0 and name != "seed"):
        raise _broken(record, position, f"{name!r} is {value!r}, but must be a whole number of 0 or more")
    return value


def _test_error(record: Record, position: int) -> float:
    test = record.get("test")
    error = number(test.get("error")) if isinstance(test, dict) else None
    if error is None or not 0 <= error <= 1:
        raise _broken(record, position, f"the test error is {error!r}, but must be from 0 to 1")
    return error


def _broken(record: Record, position: int, what: str) -> DataError:
    hint = "remove that line from the results file, or run its command again"
    return DataError(f"record {position} ({record['kind']}): {what}", hint=hint)


def _run_key(record: Record) -> Key:
    num_views = record.get("num_views") if record.get("generation") else None
    limit = number(record.get("limit"))
    return Key(
        # Models trained on the first images only are not compared with models trained on all.
        data=str(record.get("data", "")) + (f" (first {limit:,.0f})" if limit else ""),
        model=str(record.get("model", "")),
        loss=str(record.get("loss", "")),
        num_views=num_views if isinstance(num_views, int) else None,
    )


def _can_be_member(key: Key, run: Result, ensemble: Record) -> bool:
    weights = ensemble.get("weights")
    return (
        run.seed == ensemble["seed"]
        and run.record.get("generation") in list_in(ensemble, "generations")
        and all(ensemble.get(name, getattr(key, name)) == getattr(key, name) for name in ("model", "loss"))
        and (not isinstance(weights, list) or run.record.get("weights") in weights)
    )


def _is_control(record: Record) -> bool:
    """Return whether a record is of a model without a teacher, or of an ensemble of such models."""
    return record["kind"] == "control" or isinstance(record.get("members"), list)


def _control_key(record: Record, controls: _Found) -> Key | None:
    """Return the key of a control: its model and data, or those of an ensemble's members."""
    if record["kind"] == "control":
        return _shared(_run_key(record))
    weights = list_in(record, "weights")
    for key, results in controls.items():
        if any(result.record.get("weights") in weights for result in results.values()):
            return key
    return None


def _shared(key: Key) -> Key:
    """Return the key of the controls that serve a family: of its model and data, whatever the loss and views."""
    return key._replace(loss="", num_views=None)
