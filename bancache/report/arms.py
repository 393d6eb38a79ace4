"""The table of a study from a file: every arm that the file names, against its baseline, whatever came out.

Differences are paired by seed, with Student's 95 % interval from three seeds on. All numbers are fractions of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bancache.report.families import arm_results, dict_in, dicts_in, mean_of
from bancache.report.power import seeds_needed
from bancache.report.results import Record
from bancache.report.tables import Cell, Difference, cell_of, differences_of, spread_of


class Fit(NamedTuple):
    """Means over seeds on one split, None where no line has the value.

    ``nll`` is in nats, ``agreement`` the share of the images that an arm and its teacher put into one class, and ``kl`` the
    divergence of its probabilities from its teacher's in nats.
    """

    error: float | None
    nll: float | None
    ece: float | None
    agreement: float | None
    kl: float | None


@dataclass(frozen=True)
class ArmRow:
    """One arm.

    Attributes:
        name: As the file calls it.
        changes: What the file says of it, such as ``label_weight = 2``.
        cell: The test errors; None if no seed has been trained.
        missing: Seeds of the study that have not been trained.
        difference: To the baseline; None of the baseline itself, or if no seed has both.
        needed: Number of paired seeds that a difference of half a point needs; None for fewer than three seeds.
        test: Other scores on the test images.
        train: Scores on training images as they are; of models that the study trained.
    """

    name: str
    changes: str
    cell: Cell | None
    missing: tuple[int, ...]
    difference: Difference | None
    needed: int | None
    test: Fit
    train: Fit


@dataclass(frozen=True)
class ArmTable:
    """A study's arms in the order of its file, the baseline that they are compared with, and the seeds."""

    baseline: str
    seeds: tuple[int, ...]
    rows: tuple[ArmRow, ...]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The differences that there are, in the same order."""
        return tuple(row.difference for row in self.rows if row.difference is not None)

    @property
    def missing(self) -> int:
        """Number of models and ensembles that are missing."""
        return sum(len(row.missing) for row in self.rows)


def arm_table(settings: Mapping[str, Any], records: Sequence[Record]) -> ArmTable:
    """Return the table of a study, from the tables of its arms.toml and its result lines."""
    study, arms = settings["study"], settings["arms"]
    seeds, results = tuple(sorted(study["seeds"])), arm_results(records)
    found = {name: results[name] for name in arms if name in results}
    pairs = [(name, found.get(study["baseline"], ())) for name in found if name != study["baseline"]]
    differences = {difference.ours.column: difference for difference in differences_of(found, pairs)}
    rows = []
    for name, settings_of in arms.items():
        own, difference = found.get(name, []), differences.get(name)
        trained = _last(records, "train", "name", name)
        there = {result.seed for result in own}
        enough = difference is not None and difference.interval is not None
        spread = spread_of(difference.values) if difference and enough else None
        rows.append(
            ArmRow(
                name=name,
                changes=", ".join(f"{key} = {_shown(value)}" for key, value in settings_of.items()),
                cell=cell_of(own) if own else None,
                missing=tuple(seed for seed in seeds if seed not in there),
                difference=difference,
                needed=None if spread is None else seeds_needed(spread),
                test=_fit(
                    [result.record["test"] for result in own], _last(records, "agreement", "net", name)
                ),
                train=_fit([dict_in(line, "train") for line in trained], trained),
            )
        )
    return ArmTable(study["baseline"], seeds, tuple(rows))


def arm_rows(table: ArmTable) -> list[dict[str, Any]]:
    """Return one dict for each arm, ready for JSON; errors and differences are fractions of one."""
    return [
        {
            "name": row.name,
            "error": row.cell and row.cell.mean,
            "error_spread": row.cell and row.cell.spread,
            "errors": list(row.cell.errors) if row.cell else [],
            "seeds": list(row.cell.seeds) if row.cell else [],
            "missing": list(row.missing),
            "difference": row.difference and row.difference.mean,
            "difference_interval": row.difference
            and row.difference.interval
            and list(row.difference.interval),
            "difference_seeds": list(row.difference.ours.seeds) if row.difference else [],
            "seeds_for_half_a_point": row.needed,
            **{key: value for key, value in row.test._asdict().items() if key != "error"},
            "train": row.train._asdict(),
        }
        for row in table.rows
    ]


def _last(records: Sequence[Record], kind: str, key: str, name: str) -> list[Record]:
    """Return the lines of a kind about an arm, one for each seed: of two the last one counts."""
    found = [line for line in records if line.get("kind") == kind and line.get(key) == name]
    return list({line.get("seed"): line for line in found}.values())


def _fit(scores: Sequence[Record], compared: Sequence[Record]) -> Fit:
    """Return the means of scores, and of what lines say of an arm and its teacher."""
    others = [other for line in compared for other in dicts_in(line, "with")]
    error, nll, ece = (mean_of(scores, name) for name in ("error", "nll", "ece"))
    return Fit(error, nll, ece, mean_of(others, "share"), mean_of(others, "kl"))


def _shown(value: object) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)
