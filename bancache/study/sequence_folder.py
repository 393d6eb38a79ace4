"""run.toml, which keeps the settings of a born-again sequence in its output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bancache.errors import DataError, MismatchError, UsageError
from bancache.report.settings import ARMS, SETTINGS
from bancache.study.experiment import Experiment
from bancache.system import configs
from bancache.system.checked import Size, checked
from bancache.system.locks import in_turn
from bancache.training.recipe import with_additions

# Settings that a later call may extend; older versions wrote no decoder and no balance of a limit, and fingerprints tell
# whether they matter.
_GROWING = ("seeds", "generations", "controls", "decoder", "balanced")

_CORRECT = "correct it, or choose another --out"

_Tables = dict[str, dict[str, Any]]


class _Sequence(Struct):
    seeds: list[Annotated[int, Meta(ge=0)]] = []
    generations: Annotated[int, Meta(ge=0, lt=1 << 20)] = 0
    controls: bool = False


class _Model(Struct):
    image_size: tuple[Size, Size] | None = None


class _Stored(Struct):
    data: dict[str, Any]
    model: _Model
    recipe: dict[str, Any]
    sequence: _Sequence


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
            path, stored, {title: {**table, **none[title]} for title, table in configs.plain(asked).items()}
        )
    return stored


def _stored(path: Path) -> _Tables:
    """Return the tables of a run.toml; empty if there is none."""
    stored = configs.read_toml(path, DataError, _CORRECT) if path.exists() else {}
    if stored:
        checked(stored, _Stored, name=path, error=DataError, hint=_CORRECT)
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
    asked = _widened(configs.plain(experiment.to_tables()), stored.get("sequence", {}))
    if stored:
        _require_same(
            path, stored, {title: {**dict.fromkeys(stored.get(title, {})), **asked[title]} for title in asked}
        )
    if asked != stored:
        configs.write_toml(path, asked)


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
