"""Arm and Study: models that differ in one thing, each trained once for every seed, from the same first weights on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bancache.sources.spec import DataSpec
from bancache.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model of each seed, or an ensemble of such models.

    Attributes:
        name: As tables show it.
        file: Name of its checkpoint and of its cache in the folder of a seed, without ending.
        recipe: Its hyper-parameters.
        start: Which first weights and order of images it has; arms of one start share them.
        generation: 0 without a teacher, else its teacher's plus 1.
        teacher: Name of the arm from whose cache it learns; None: from labels alone.
        label_weight: Factor of the cross-entropy without a teacher.
        members: Names of the arms of an ensemble, which trains nothing; empty for a model.
        views_of: A model without a teacher sees the views of the caches of this generation; None: all views in turn.
        beside: Names of the arms with which its predictions are compared.
        line: What its result line says besides the facts of the model.
    """

    name: str
    file: str
    recipe: Recipe
    start: int = 1
    generation: int = 0
    teacher: str | None = None
    label_weight: float = 1.0
    members: tuple[str, ...] = ()
    views_of: int | None = None
    beside: tuple[str, ...] = ()
    line: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all arms have in common, and the arms. A teacher stands before its students.

    Attributes:
        architecture: Name and arguments of the model, the same in every arm.
        amp: Whether teachers run in bfloat16.
        num_views: Number of views per sample in each cache.
        batch_size: Views per forward pass of a dump.
        seeds: One repetition per seed, each with all arms.
        profile: Layout of the caches on disk.
    """

    data: DataSpec
    architecture: dict[str, Any]
    amp: bool
    views: str
    num_views: int
    encoding: str
    batch_size: int
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    profile: str = "default"

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        """The arms by name."""
        return {arm.name: arm for arm in self.arms}
