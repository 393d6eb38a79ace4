"""Result lines sorted into families: the nets of one model, one loss and one cache size, over generations.

A family is a row of the paper's Table 1. Its columns are the baseline (generation 0, taught by labels),
BAN-1, BAN-2 and so on, then the ensembles. Beside them stand the controls, nets without a teacher. This is the border of the report: what is wrong in a record is
refused here, what is missing in it is None here, and nothing after it checks again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bancache.errors import DataError
from bancache.report.results import Record

BASELINE = "baseline"


@dataclass(frozen=True)
class Result:
    """One net or one ensemble of nets, on the test images.

    Attributes:
        column: ``baseline``, ``BAN-1`` or the ensemble's name; of controls ``labels-1``, ``weight-2``, ``Ctl*2``.
        rank: Where the column stands: nets by generation, then ensembles by size; controls likewise.
        seed: The seed of the net, or of all the ensemble's members.
        error: Fraction of the test images that it gets wrong.
        record: The line that it comes from, for everything that may be missing.
    """

    column: str
    rank: tuple[int, int, str]
    seed: int
    error: float
    record: Record

    def test(self, name: str) -> float | None:
        """Give a number of the test, such as ``nll``; None where it was not measured."""
        return number(self.record["test"].get(name))


@dataclass(frozen=True)
class Family:
    """Every result of one model, loss and cache size on one data source, each seed of a column once.

    The controls are those of its model and data: nets without a teacher, and ensembles of them.
    """

    data: str
    model: str
    loss: str
    num_views: int | None
    results: tuple[Result, ...]
    controls: tuple[Result, ...] = ()

    def columns(self) -> dict[str, tuple[Result, ...]]:
        """Give the results of each column by seed, the columns in the table's order."""
        return _by_column(self.results)

    def control_columns(self) -> dict[str, tuple[Result, ...]]:
        """Give the same of the controls."""
        return _by_column(self.controls)


def _by_column(results: Sequence[Result]) -> dict[str, tuple[Result, ...]]:
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.rank, result.seed)):
        found.setdefault(result.column, []).append(result)
    return {column: tuple(results) for column, results in found.items()}


@dataclass(frozen=True)
class _Key:
    data: str
    model: str
    loss: str
    num_views: int | None


_Found = dict[_Key, dict[tuple[str, int], Result]]


def sort_families(records: Sequence[Record]) -> tuple[Family, ...]:
    """Sort runs and ensembles into families; of two records of the same thing the last one counts.

    Generation 0 serves every family of its model and data as the baseline. Where it was recorded under
    several losses, a family takes its own loss or else the first; those that serve none stand alone.

    Raises:
        DataError: A run or an ensemble lacks what the table cannot do without.
    """
    found: _Found = {}
    controls: _Found = {}
    runs: list[tuple[_Key, Result]] = []
    for record, result in _results(records):
        if _is_control(record):
            if (control := _control_key(record, controls)) is not None:
                controls.setdefault(control, {})[result.column, result.seed] = result
            continue
        key = _own_key(record) if record["kind"] == "run" else _members_key(record, runs)
        if key is None:
            continue
        if record["kind"] == "run":
            runs.append((key, result))
        found.setdefault(key, {})[result.column, result.seed] = result
    return tuple(
        Family(
            key.data,
            key.model,
            key.loss,
            key.num_views,
            tuple(results.values()),
            tuple(controls.get(replace(key, loss="", num_views=None), {}).values()),
        )
        for key, results in _with_baselines(found).items()
    )


def number(value: object) -> float | None:
    """Give a finite number as a float, anything else as None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def mean_of(records: Sequence[Record], name: str) -> float | None:
    """Give the mean of a number over the records that have it, None where none has."""
    values = [value for record in records if (value := number(record.get(name))) is not None]
    return statistics.fmean(values) if values else None


def history(record: Record) -> list[Mapping[str, Any]]:
    """Give the epochs of a run; none where they were not recorded."""
    epochs = record.get("history")
    return [epoch for epoch in epochs if isinstance(epoch, dict)] if isinstance(epochs, list) else []


def _with_baselines(found: _Found) -> _Found:
    """Put the results of generation 0 into the families of its model and data, if there are any."""
    founders = [key for key, results in found.items() if all(column == BASELINE for column, _ in results)]
    families = {key: results for key, results in found.items() if key not in founders}
    served = set()
    for key in families:
        fitting = [founder for founder in founders if (founder.data, founder.model) == (key.data, key.model)]
        # sorted() is stable: the one recorded under the family's own loss, else the first.
        for founder in sorted(fitting, key=lambda founder: founder.loss != key.loss)[:1]:
            served.add(founder)
            families[key] = {**found[founder], **found[key]}
    return {**{key: found[key] for key in founders if key not in served}, **families}


def _results(records: Sequence[Record]) -> Iterator[tuple[Record, Result]]:
    for position, record in enumerate(records, 1):
        if record.get("kind") == "run":
            generation = _whole(record, "generation", position)
            column = f"BAN-{generation}" if generation else BASELINE
            rank = (0, generation, "")
        elif record.get("kind") == "ensemble":
            column = str(record.get("name", "ensemble"))
            rank = (1, len(_members(record, "members" if _is_control(record) else "generations")), column)
        elif record.get("kind") == "control":
            role, member = str(record.get("role", "labels")), _whole(record, "member", position)
            column = f"{role}-{member}" if role == "labels" else role
            rank = (0, member, role) if role == "labels" else (1, 0, role)
        else:
            continue
        yield (
            record,
            Result(column, rank, _whole(record, "seed", position), _test_error(record, position), record),
        )


def _whole(record: Record, name: str, position: int) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(
            f"record {position} ({record['kind']}) has {value!r} as {name!r}; a whole number is needed",
            hint="remove that line from the results file, or run its command again",
        )
    return value


def _test_error(record: Record, position: int) -> float:
    test = record.get("test")
    error = number(test.get("error")) if isinstance(test, dict) else None
    if error is None or not 0 <= error <= 1:
        raise DataError(
            f"record {position} ({record['kind']}) has {error!r} as its test error; it lies from 0 to 1",
            hint="remove that line from the results file, or run its command again",
        )
    return error


def _own_key(record: Record) -> _Key:
    num_views = record.get("num_views") if record["generation"] else None
    limit = number(record.get("limit"))
    return _Key(
        # Nets that saw only the first training images are no match for those that saw all.
        data=str(record.get("data", "")) + (f" (first {limit:,.0f})" if limit else ""),
        model=str(record.get("model", "")),
        loss=str(record.get("loss", "")),
        num_views=num_views if isinstance(num_views, int) else None,
    )


def _members_key(ensemble: Record, runs: list[tuple[_Key, Result]]) -> _Key | None:
    """Find the family of an ensemble: that of the latest run before it that can be its member."""
    return next((key for key, run in reversed(runs) if _can_be_member(key, run, ensemble)), None)


def _can_be_member(key: _Key, run: Result, ensemble: Record) -> bool:
    weights = ensemble.get("weights")
    return (
        run.seed == ensemble["seed"]
        and run.record["generation"] in _members(ensemble)
        and all(ensemble.get(name, getattr(key, name)) == getattr(key, name) for name in ("model", "loss"))
        and (not isinstance(weights, list) or run.record.get("weights") in weights)
    )


def _members(ensemble: Record, name: str = "generations") -> list[Any]:
    members = ensemble.get(name)
    return members if isinstance(members, list) else []


def _is_control(record: Record) -> bool:
    """Whether a record is of a net without a teacher beside the sequence, or of an ensemble of such nets."""
    return record["kind"] == "control" or isinstance(record.get("members"), list)


def _control_key(record: Record, controls: _Found) -> _Key | None:
    """Find what a control belongs to: whatever has its model and data; an ensemble goes with its members."""
    if record["kind"] == "control":
        return replace(_own_key({**record, "generation": 0}), loss="")
    weights = _members(record, "weights")
    for key, results in controls.items():
        if any(result.record.get("weights") in weights for result in results.values()):
            return key
    return None
