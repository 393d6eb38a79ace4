"""Study: what a born-again sequence consists of, and the file in which its folder keeps that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bancache.errors import MismatchError, UsageError
from bancache.sources.spec import DataSpec
from bancache.system import configs
from bancache.training.recipe import Recipe

SETTINGS = "run.toml"

# The settings that may grow from one call to the next.
_GROWING = ("seeds", "generations", "controls")

_Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """What a sequence consists of.

    Attributes:
        data: Training and test images.
        architecture: Name and arguments of the net, the same in every generation.
        recipe: Hyper-parameters, the same in every generation; the loss is the students'.
        views: Name of the view space.
        num_views: Views stored of each sample.
        encoding: Of the caches.
        batch_size: Views a forward pass of the dump.
        generations: Students after generation 0.
        seeds: Repetitions, each from its own generation 0.
        controls: Whether to train the nets without which the students' figures say little: for each student one
            with the same first weights and the same order of images, taught by labels alone; and one more of
            the first kind whose loss counts twice, as two summed cross-entropies do beside one weight decay.
        profile: How the caches lie on disk.
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

    def __post_init__(self) -> None:
        if self.generations < 1 or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError(
                f"{self.generations} generations and seeds {self.seeds} make no sequence",
                hint="give at least one generation, and seeds that differ",
            )

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return the settings as the tables of run.toml."""
        own = ("views", "num_views", "encoding", "batch_size", "generations", "seeds")
        # Left out unless asked for: files that are older do not know them.
        newer = {
            "controls": self.controls or None,
            "profile": None if self.profile == "default" else self.profile,
        }
        return {
            "data": self.data.to_dict(),
            "model": self.architecture,
            "recipe": configs.to_dict(self.recipe),
            "sequence": {key: getattr(self, key) for key in own} | newer,
        }


def claim(study: Experiment, out: Path) -> None:
    """Write run.toml, or compare with the one that is there, which may ask for fewer seeds and the like.

    What was asked for before, by this process or by one that works beside it, stays in the file.

    Raises:
        MismatchError: The folder holds a study with other settings.
    """
    path = out / SETTINGS
    stored = configs.read_toml(path) if path.exists() else {}
    asked = _widened(_plain(study.to_tables()), stored.get("sequence", {}))
    for title, table in asked.items() if stored else ():
        before = stored.get(title, {})
        for key in sorted({*table, *before} - {*_GROWING}):
            if before.get(key) != table.get(key):
                raise MismatchError.between(
                    f"{path}: {title}.{key}",
                    stored=before.get(key),
                    given=table.get(key),
                    hint="use the same settings or another --out",
                )
    if asked != stored:
        configs.write_toml(path, asked)


def _plain(tables: _Tables) -> _Tables:
    """Return tables as they are read back from TOML: lists for tuples, and nothing for None."""
    return {
        title: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in table.items()
            if value is not None
        }
        for title, table in tables.items()
    }


def _widened(tables: _Tables, before: dict[str, Any]) -> _Tables:
    """Return tables that ask also for the seeds, generations and controls that were asked for before."""
    asked = tables["sequence"]
    seeds = [*before.get("seeds", ()), *asked["seeds"]]
    wider = {
        "seeds": sorted(set(seeds)) if before else seeds,
        "generations": max(asked["generations"], before.get("generations", 0)),
    }
    if asked.get("controls") or before.get("controls"):
        wider["controls"] = True
    return tables | {"sequence": asked | wider}
