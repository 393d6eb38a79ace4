"""Arm and Study: models that differ in one thing, each trained once for every seed, from the same first weights on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training.recipe import Recipe

# Training images and a torch device in; a ``Teacher``, and height and width of its views out. This module does without torch.
Open = Callable[[ImageSet, Any], tuple[Any, tuple[int, int]]]


@dataclass(frozen=True)
class Given:
    """A teacher that is there before a study begins, the same for every seed.

    Attributes:
        open: Loads it for the training images on a device, and says at which height and width it sees views. Workers call
            it, too, so it can be pickled.
        fingerprint: sha256 of its weights; empty as long as nobody has looked.
        file: Where its weights are.
    """

    open: Open
    fingerprint: str = ""
    file: Path = Path()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model of each seed, or an ensemble of such models.

    Attributes:
        name: As tables show it.
        file: Name of its checkpoint and of its cache in the folder of a seed, without ending.
        recipe: Its hyper-parameters.
        start: Which first weights and order of images it has; arms of one start share them.
        generation: 0 without a teacher, else its teacher's plus 1.
        model: Name of its model; empty: that of the study.
        given: The teacher that it is, if it is there already; it trains nothing then.
        teacher: Name of the arm from whose cache it learns, a model's or an ensemble's; None: from labels alone.
        share_layers: What it takes of its teacher's first and last layer; None: what is usual for its model.
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
    model: str = ""
    given: Given | None = None
    teacher: str | None = None
    share_layers: Literal["copy", "freeze", "none"] | None = None
    label_weight: float = 1.0
    members: tuple[str, ...] = ()
    views_of: int | None = None
    beside: tuple[str, ...] = ()
    line: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it is a model that the study trains."""
        return not self.members and self.given is None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all arms have in common, and the arms. A teacher stands before its students.

    Attributes:
        architecture: Name and arguments of the model of every arm that names no other.
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

    def architecture_of(self, arm: Arm) -> dict[str, Any]:
        """Return name and arguments of an arm's model; options of the study's model are for that one alone."""
        if arm.model in ("", self.architecture["name"]):
            return self.architecture
        kept = ("classes", "channels", "image_size")
        return {"name": arm.model, **{key: self.architecture[key] for key in kept}, "dropout": 0.0}
