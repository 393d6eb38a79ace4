"""Experiment: the settings of a born-again sequence, and run.toml, which keeps them in the output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bancache.errors import DataError, MismatchError, UsageError
from bancache.report.settings import ARMS, SETTINGS
from bancache.sources.spec import DataSpec
from bancache.study.arms import Given
from bancache.system import configs
from bancache.system.checked import checked
from bancache.system.locks import in_turn
from bancache.training.recipe import Recipe, with_additions

# Settings that a later call may extend; older versions wrote no decoder and no balance of a limit, and fingerprints tell
# whether they matter.
_GROWING = ("seeds", "generations", "controls", "decoder", "balanced")

_Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """The settings of a born-again sequence.

    Attributes:
        architecture: Name and arguments of the model, the same in every generation.
        recipe: Hyper-parameters, the same in every generation; generation 0 ignores the loss.
        num_views: Number of views per sample in each cache.
        batch_size: Views per forward pass of the dump.
        generations: Number of students after generation 0.
        seeds: One repetition per seed, each with its own generation 0.
        controls: Whether to train the controls, too: for each student a label-only baseline (``labels-k``: same
            initial weights and sample order, no teacher), and one baseline with doubled CE weight (``weight-2``),
            because loss ``ban-l`` sums two cross-entropies. ``Ctl*k`` are the baseline ensembles.
        profile: Layout of the caches on disk: ``default``, ``compact`` or ``mmap``.
        teacher: The teacher of the first students, if it is there already, in the place of generation 0.

    Raises:
        UsageError: There are no generations or no seeds, or a seed occurs twice.
    """

    data: DataSpec
    architecture: dict[str, Any]
    recipe: Recipe
    views: str
    num_views: int
    encoding: str
    batch_size: int
    generations: int
    seeds: tuple[int, ...]
    controls: bool = False
    profile: str = "default"
    teacher: Given | None = None

    def __post_init__(self) -> None:
        check_sequence(self.generations, self.seeds)

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return the tables of run.toml."""
        own = ("views", "num_views", "encoding", "batch_size", "generations", "seeds")
        sequence = {key: getattr(self, key) for key in own}
        # Left out by default: older files do not have them.
        if self.controls:
            sequence["controls"] = True
        if self.profile != "default":
            sequence["profile"] = self.profile
        if self.teacher is not None:
            sequence["teacher"] = self.teacher.fingerprint
        tables = {"data": self.data.to_dict(), "model": self.architecture}
        return tables | {"recipe": self.recipe.to_dict(), "sequence": sequence}


class _Sequence(Struct):
    seeds: list[Annotated[int, Meta(ge=0)]] = []
    generations: Annotated[int, Meta(ge=0, lt=1 << 20)] = 0
    controls: bool = False


class _Stored(Struct):
    data: dict[str, Any]
    model: dict[str, Any]
    recipe: dict[str, Any]
    sequence: _Sequence


def check_sequence(generations: int, seeds: tuple[int, ...]) -> None:
    """Raise ``UsageError`` if there are no generations or no seeds, or if a seed is out of range or occurs twice."""
    if generations < 1:
        raise UsageError(f"{generations} generations make no sequence", hint="give --generations 1 or more")
    check_seeds(seeds)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ``UsageError`` if there are no seeds, or if one is out of range or occurs twice."""
    if not seeds:
        raise UsageError("there are no seeds", hint="for example --seeds 0,1,2")
    if repeated := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise UsageError(
            f"seed {repeated[0]} is given twice", hint="give every seed once, such as --seeds 0,1,2"
        )
    if not 0 <= min(seeds) <= max(seeds) < 1 << 53:
        raise UsageError(f"seeds {seeds} are not in 0..2^53 - 1", hint="for example --seeds 0,1,2")


def claim(experiment: Experiment, out: Path) -> None:
    """Write run.toml, or extend an existing one with new seeds, generations and controls. Nothing is removed from it."""
    if (out / ARMS).exists():
        raise UsageError(f"{out} is a folder of `bancache study`", hint="choose another --out")
    with in_turn(out):  # processes that start together must not drop each other's seeds
        _claim(experiment, out / SETTINGS)


def recorded_settings(out: Path, asked: _Tables) -> _Tables:
    """Return the tables of the run.toml in a folder; empty if there is none.

    Raises:
        MismatchError: They differ from those that the user asked for, which may be a part of them.
    """
    path = out / SETTINGS
    stored = _stored(path)
    if stored:
        none = {
            title: {key: None for key, value in table.items() if value is None}
            for title, table in asked.items()
        }
        _require_same(
            path, stored, {title: {**table, **none[title]} for title, table in plain(asked).items()}
        )
    return stored


def _stored(path: Path) -> _Tables:
    """Return the tables of a run.toml; empty if there is none."""
    stored = configs.read_toml(path) if path.exists() else {}
    if stored:
        checked(stored, _Stored, name=path, error=DataError, hint="correct it, or choose another --out")
    return stored


def _require_same(path: Path, stored: _Tables, asked: _Tables) -> None:
    for title, table in asked.items():
        before = stored.get(title, {})
        if title == "recipe":
            before, table = with_additions(before), with_additions(table)
        for key in sorted({*table} - {*_GROWING}):
            if before.get(key) != table[key]:
                raise MismatchError.between(
                    f"{path}: {title}.{key}",
                    stored=before.get(key),
                    given=table[key],
                    hint="use the same settings or another --out",
                )


def _claim(experiment: Experiment, path: Path) -> None:
    stored = _stored(path)
    asked = _widened(plain(experiment.to_tables()), stored.get("sequence", {}))
    if stored:
        _require_same(
            path, stored, {title: {**dict.fromkeys(stored.get(title, {})), **asked[title]} for title in asked}
        )
    if asked != stored:
        configs.write_toml(path, asked)


def plain(tables: _Tables) -> _Tables:
    """Return tables as TOML gives them back: lists instead of tuples, no None."""
    plain = json.loads(json.dumps(tables)).items()
    return {
        title: {key: value for key, value in table.items() if value is not None} for title, table in plain
    }


def _widened(tables: _Tables, before: dict[str, Any]) -> _Tables:
    """Return tables extended by the seeds, generations and controls of ``before``."""
    asked = tables["sequence"]
    seeds = [*before.get("seeds", ()), *asked["seeds"]]
    wider = {
        "seeds": sorted(set(seeds)) if before else seeds,
        "generations": max(asked["generations"], before.get("generations", 0)),
    }
    if asked.get("controls") or before.get("controls"):
        wider["controls"] = True
    return tables | {"sequence": asked | wider}
