"""The values that a cache's JSON files may have; what is not named here is not looked at."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from bancache.cache.digests import Digest
from bancache.system.checked import Address, Amount, Count, Finite, Name, Positive, Share, Size, Text

# Names become folders beside manifest.json, so they have neither dots nor slashes.
_Folder = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,30}\Z")]
Dtype = Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "float64"]
Temperature = Annotated[str, Meta(pattern=r"^\d{1,4}(\.\d{1,6})?\Z")]
_Hash = Annotated[str, Meta(min_length=1, max_length=128)]


class Field(Struct):
    """An array."""

    name: _Folder
    dtype: Dtype
    shape: Annotated[list[Size], Meta(max_length=4)]
    dimensions: Annotated[list[_Folder], Meta(max_length=4)]


class _Named(Struct):
    name: Name


class _Views(Struct):
    seed: Annotated[int, Meta(ge=0)]
    id: Text
    # Of a lattice.
    pad: Annotated[int, Meta(ge=0, le=4096)] | None = None
    mode: Literal["reflect", "zero"] | None = None
    flip: bool | None = None
    # Of counters.
    name: Text | None = None


class _Normalization(Struct):
    mean: Annotated[list[Finite], Meta(min_length=1, max_length=64)]
    std: Annotated[list[Positive], Meta(min_length=1, max_length=64)]


class _Pixels(Struct):
    normalisation: _Normalization
    golden: _Hash
    size: Annotated[list[Size], Meta(min_length=2, max_length=2)] | None = None


class _Source(Struct):
    source: Address
    limit: Size | None = None
    image_size: Size | None = None
    skip_bad: bool = False
    decoder: Annotated[int, Meta(ge=1, lt=1 << 20)] = 1


class _Dataset(Struct):
    spec: _Source
    fingerprint: _Hash
    classes: list[Text]
    image_shape: Annotated[list[Size], Meta(min_length=3, max_length=3)] | None = None
    chance: Share | None = None


class _Architecture(Struct):
    name: Address  # of a teacher that is no checkpoint: what was typed, perhaps a long path
    classes: Size | None = None
    channels: Size | None = None
    image_size: Annotated[list[Size], Meta(min_length=2, max_length=2)] | None = None


class _Ancestor(Struct):
    generation: Count
    model: Address
    weights: _Hash
    accuracy: Share | None = None
    cache: _Hash | None = None


class _Input(Struct):
    normalization: _Normalization
    origin: Text
    size: Annotated[list[Size], Meta(min_length=2, max_length=2)] | None = None
    interpolation: Text | None = None


class _Member(Struct):
    fingerprint: _Hash
    normalisation: _Normalization
    outputs: Literal["logits", "probabilities"]
    architecture: _Architecture
    path: Address
    input: _Input
    generation: Annotated[int, Meta(ge=0, lt=1 << 20)] = 0
    accuracy: Share | None = None


class _Teacher(Struct):
    fingerprint: _Hash
    architecture: _Architecture
    generation: Annotated[int, Meta(ge=0, lt=1 << 20)]
    lineage: list[_Ancestor] = []
    path: Address = ""
    accuracy: Share | None = None
    recipe: dict[str, Any] | None = None
    # Its learning rate is that of a model which began with weights.
    fine_tuned: bool = False
    input: _Input | None = None
    # Of an ensemble.
    combine: Literal["probabilities", "logits"] | None = None
    members: Annotated[list[_Member], Meta(max_length=1000)] = []


class _Compute(Struct):
    batch_size: Annotated[int, Meta(ge=1, lt=1 << 31)]
    precision: Literal["float32", "bfloat16"]
    outputs: Literal["logits", "probabilities"] | None = None
    device: Name | None = None
    tf32: Literal["none", "convolutions", "matmuls", "convolutions and matmuls"] | None = None
    deterministic: bool | None = None


class ManifestValues(Struct):
    """The fixed part of a manifest."""

    samples: Size
    slots: Size
    classes: Size
    fields: Annotated[list[Field], Meta(min_length=1, max_length=16)]
    encoding: _Named
    view_space: _Views
    pixels: _Pixels
    dataset: _Dataset
    teacher: _Teacher
    compute: _Compute
    created_with: dict[Name, Name]
    profile: Literal["default", "compact", "mmap"] = "default"
    shard_samples: Size | None = None


class _Loss(Struct):
    kl_mean: Amount
    kl_p999: Amount
    kl_max: Amount
    argmax_agreement: Share
    gradient_error: Amount | None = None


class _Noise(Struct):
    kl_mean: Amount
    kl_max: Amount


class OtherDevice(Struct):
    """A kind of device that made shards of a cache that another kind began."""

    device: Name
    tf32: Literal["none", "convolutions", "matmuls", "convolutions and matmuls"] | None = None
    deterministic: bool | None = None


class Summary(Struct):
    """What was measured while a cache was written; ``slots``, the sums of its views, are checked where they are used."""

    fidelity: dict[Temperature, _Loss] | None = None
    noise_floor: dict[Temperature, _Noise] | None = None
    finite_values: Annotated[int, Meta(ge=0)] | None = None
    teacher_accuracy: Share | None = None
    teacher_mean_max_probability: Share | None = None
    mixed_devices: list[OtherDevice] = []


class Stored(Struct):
    """A manifest.json whose digest holds, but for its files, which are compared with its layout."""

    complete: bool
    summary: Summary | UnsetType = UNSET


class Record(Struct):
    """The record of a shard."""

    promise: _Hash
    region: Count
    files: dict[str, Digest]
    facts: dict[str, Any]
    reference: dict[str, Digest] = {}
