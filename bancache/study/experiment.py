"""Experiment: the settings of a born-again sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bancache.errors import UsageError
from bancache.sources.spec import DataSpec
from bancache.study.arms import Given
from bancache.training.recipe import Recipe


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
