"""The header of a checkpoint: which values it must have, and of what types and ranges."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bancache.system.checked import Seed

Name = Annotated[str, Meta(min_length=1, max_length=5000)]
Size = Annotated[int, Meta(ge=1, le=16384)]
Count = Annotated[int, Meta(ge=0)]
Numbers = Annotated[list[float], Meta(min_length=1, max_length=3)]


class Architecture(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of ``build_model``."""

    name: Name
    classes: Annotated[int, Meta(ge=2, le=1_000_000)]
    channels: Annotated[int, Meta(ge=1, le=3)]
    image_size: tuple[Size, Size]
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    checkpoint_activations: bool = False


class _Data(msgspec.Struct):
    source: Name
    limit: Annotated[int, Meta(ge=1)] | None = None
    image_size: Size | None = None


class _Normalization(msgspec.Struct):
    mean: Numbers
    std: Numbers

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, self.mean)):
            raise ValueError("mean and std are finite numbers, one a channel")
        if not all(0 < each < math.inf for each in self.std):
            raise ValueError("std is above 0")


class _Recipe(msgspec.Struct):
    epochs: Annotated[int, Meta(ge=1)] | None = None
    loss: Name | None = None
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    amp: bool = False


class _Ancestor(msgspec.Struct):
    generation: Count
    model: Name
    weights: Name


class _Test(msgspec.Struct):
    accuracy: Annotated[float, Meta(ge=0, le=1)]


class Header(msgspec.Struct):
    """What is read of a header without a further look; it may hold more."""

    architecture: Architecture
    classes: Annotated[list[Annotated[str, Meta(max_length=5000)]], Meta(min_length=2)]
    data: _Data
    data_fingerprint: Name
    normalisation: _Normalization
    views: Name
    weights: Name
    recipe: _Recipe | None = None
    lineage: list[_Ancestor] = []
    test: _Test | None = None
    generation: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    seed: Seed = 0
    parameters: Count = 0
    trainable: Count = 0
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    images_per_second: Annotated[float, Meta(ge=0)] = 0.0
    history: list[dict[str, Any]] = []

    def __post_init__(self) -> None:
        if len(self.classes) != self.architecture.classes:
            raise ValueError(
                f"{len(self.classes)} classes are named, the model has {self.architecture.classes}"
            )
        if len(self.normalisation.mean) != self.architecture.channels:
            raise ValueError(f"the normalization is not one of {self.architecture.channels} channels")


def check_header(header: dict[str, Any]) -> None:
    """Check types and ranges; ``msgspec.ValidationError`` says where the first wrong value is."""
    msgspec.convert(header, Header)
