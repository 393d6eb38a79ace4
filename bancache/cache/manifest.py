"""Manifest: everything that is fixed before a cache is written, as plain values, and how two manifests are compared.

View space and encoding are opaque JSON here: a new encoding changes no storage code.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bancache.cache.profile import COMPACT, DEFAULT, LARGE_SHARDS, VERSIONS, folded
from bancache.cache.schema import ManifestValues
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.checked import checked
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.wording import count

# The newest format that is read; a cache is written in the oldest format whose readers understand it.
FORMAT_VERSION = LARGE_SHARDS

_PAIR_LIMIT = _SHARD_LIMIT = 1 << 26
# Names on disk that differ from the attribute's: the formats are frozen.
_ON_DISK = {"num_views": "slots"}
# Keys that a format does not know are ignored, as its first readers do.
_NOT_YET: dict[int, dict[str, Any]] = {
    1: {"profile": DEFAULT, "shard_samples": None},
    2: {"shard_samples": None},
}
_OF_DEVICE = ("device", "tf32", "deterministic")


@dataclass(frozen=True)
class Manifest:
    """Everything about a cache that is fixed before its first shard is written.

    Attributes:
        samples: N, training images in the data set's order.
        num_views: V, views stored of each sample.
        classes: C.
        fields: The arrays that the encoding makes of a (sample, view) pair.
        encoding: The encoding's config.
        view_space: The view space's config; its seed decides what each view of a sample shows.
        pixels: ``normalisation``, ``golden``: a hash of a few rendered views, and ``size``,
            height and width of the teacher's inputs, if it is not that of the images.
        dataset: ``spec`` to open it again, ``fingerprint`` of content and order, ``classes``: their names.
        teacher: ``fingerprint`` of the weights, ``architecture``, ``generation``, ``lineage``, ``path``.
        compute: ``batch_size`` and ``precision`` of the teacher's forward pass, and the kind of ``device``, of a GPU
            also ``tf32`` and ``deterministic``: a shard's bytes depend on them.
        created_with: Versions of the libraries that began the cache.
        profile: Storage profile; the decoded values do not depend on it.
        shard_samples: Samples of a shard; None if they follow from the sizes, as ``layout.block_of`` says.
    """

    samples: int
    num_views: int
    classes: int
    fields: tuple[FieldSpec, ...]
    encoding: dict[str, Any]
    view_space: dict[str, Any]
    pixels: dict[str, Any]
    dataset: dict[str, Any]
    teacher: dict[str, Any]
    compute: dict[str, Any]
    created_with: dict[str, str]
    profile: str = DEFAULT
    shard_samples: int | None = None

    def __post_init__(self) -> None:
        checked(self._plain(), ManifestValues, name="the manifest", error=UsageError)
        if problem := _problem(self):
            raise UsageError(f"the manifest: a cache cannot have {problem}")

    @property
    def format_version(self) -> int:
        """The format version in the cache's files."""
        return VERSIONS[self.profile] if self.shard_samples is None else LARGE_SHARDS

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the manifest as JSON; every record of an unfinished cache carries it."""
        return fingerprint_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON values that lie on disk; format 1 has no profiles, and format 3 alone the size of shards."""
        plain = self._plain()
        if self.format_version == 1:
            del plain["profile"]
        if self.format_version != LARGE_SHARDS:
            del plain["shard_samples"]
        return {"format_version": self.format_version, **plain}

    def _plain(self) -> dict[str, Any]:
        plain = {_ON_DISK.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["fields"] = [
            {"name": f.name, "dtype": f.dtype, "shape": list(f.shape), "dimensions": list(f.dimensions)}
            for f in self.fields
        ]
        return plain

    @classmethod
    def from_dict(cls, values: Any, name: object = "the manifest") -> Manifest:
        """Return the manifest that ``to_dict`` returned as JSON; errors call it ``name``."""
        version = 1
        if isinstance(values, dict):
            version = require_version(values.get("format_version"))
            values = {**values, **_NOT_YET.get(version, {})}
        promise = checked(values, ManifestValues, name=name, error=CacheDamagedError)
        names = {f.name: _ON_DISK.get(f.name, f.name) for f in dataclasses.fields(cls)}
        rest = {name: values[on_disk] for name, on_disk in names.items() if on_disk in values}
        rest["fields"] = tuple(
            FieldSpec(f.name, f.dtype, tuple(f.shape), tuple(f.dimensions)) for f in promise.fields
        )
        try:
            manifest = cls(**rest)
        except UsageError as error:
            raise CacheDamagedError(f"{name} makes no sense: {error}") from error
        if manifest.format_version != version:
            lacks = "" if version < LARGE_SHARDS else " without shard_samples"
            raise CacheDamagedError(
                f"{name} makes no sense: profile {manifest.profile} in format {version}{lacks}"
            )
        return manifest

    @property
    def teacher_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the teacher was given; None if they had their own size."""
        size = self.pixels.get("size")
        return None if size is None else (size[0], size[1])

    @property
    def teacher_paths(self) -> list[str]:
        """The recorded paths of the teacher, or of the teachers of an ensemble."""
        return [str(each.get("path", "")) for each in self.teacher.get("members", [self.teacher])]

    def require_dataset(self, fingerprint: str) -> None:
        """Require that a data set is the one that the teacher saw; MismatchError if anything of it differs."""
        stored = self.dataset["fingerprint"]
        if stored != fingerprint:
            from bancache.sources.other_pixels import why_other_pixels

            hint = "content, order, labels and class names all count; dump again for this data set"
            why = why_other_pixels(self.dataset.get("spec", {}), self.created_with.get("pillow"))
            raise MismatchError.between(
                "data set",
                stored=f"'{short(stored)}'",
                given=f"'{short(fingerprint)}'",
                hint=f"{hint}. The files may be the same: {why}" if why else hint,
            )

    def require_pixels(self, golden: str) -> None:
        """Require that views are rendered to the pixels of the dump; ``golden`` is their hash here, MismatchError names both."""
        stored = self.pixels["golden"]
        if stored != golden:
            raise MismatchError.between(
                "pixels of the same views",
                stored=f"'{short(stored)}'",
                given=f"'{short(golden)}'",
                hint="a library renders other pixels here than where the cache was made; report this",
            )

    def require_pairs(self, samples: Iterable[int], view_indices: Iterable[int]) -> None:
        """Raise UsageError if the cache has not all of these samples and view indices."""
        for name, given, limit in (
            ("sample", samples, self.samples),
            ("view", view_indices, self.num_views),
        ):
            for number in given:
                if not 0 <= number < limit:
                    raise UsageError(
                        f"the cache has no {name} {number}, it has {count(limit, name)}",
                        hint=f"give --{name} 0 to {limit - 1}",
                    )

    def require_same(self, other: Manifest) -> None:
        """Require that a writer with manifest ``other`` may go on with this cache."""
        # What must be equal, most telling first; paths and library versions may differ.
        for subject, stored, given in [
            ("data set", self.dataset["fingerprint"], other.dataset["fingerprint"]),
            ("teacher", self.teacher["fingerprint"], other.teacher["fingerprint"]),
            ("view space", self.view_space, other.view_space),
            ("size of the teacher's images", self.teacher_size, other.teacher_size),
            ("number of views", self.num_views, other.num_views),
            ("encoding", self.encoding["name"], other.encoding["name"]),
            ("encoding", self.encoding, other.encoding),
            ("arrays", _arrays(self), _arrays(other)),
            ("profile", self.profile, other.profile),
            ("classes", self.classes, other.classes),
            ("samples", self.samples, other.samples),
            ("samples of a shard", self.shard_samples, other.shard_samples),
            ("pixels", self.pixels, other.pixels),
            ("teacher's forward pass", self._compute(of_device=False), other._compute(of_device=False)),
        ]:
            if stored != given:
                raise MismatchError.between(
                    subject,
                    stored=_shown(stored),
                    given=_shown(given),
                    hint="use the same settings, another --out, or --overwrite to start anew",
                )

    def require_same_device(self, other: Manifest) -> None:
        """Require that manifest ``other`` names the same kind of device: another one rounds differently.

        Caches of earlier versions do not name theirs, and are not refused.
        """
        if given := self.other_device(other):
            raise MismatchError.between(
                "device of the teacher",
                stored=_shown(self._compute(of_device=True)),
                given=_shown(given),
                hint="go on where it began (--device), or use another --out, or --overwrite to start anew; "
                "--mixed-devices lets a dump go on here, and the cache says so",
            )

    def other_device(self, other: Manifest) -> dict[str, Any]:
        """Return the kind of device of manifest ``other`` if it is another one than this manifest's, else nothing."""
        stored, given = self._compute(of_device=True), other._compute(of_device=True)
        return given if stored and given != stored else {}

    def _compute(self, *, of_device: bool) -> dict[str, Any]:
        return {key: value for key, value in self.compute.items() if (key in _OF_DEVICE) is of_device}


def require_version(version: Any) -> int:
    """Return a format's version."""
    if type(version) is int and version > FORMAT_VERSION:
        raise MismatchError(
            f"the cache has format {version}, this bancache reads up to {FORMAT_VERSION}",
            hint="upgrade bancache",
        )
    if type(version) is not int or version < 1:
        raise CacheDamagedError(f"the manifest makes no sense: format {str(version)[:20]!r}")
    return version


def _problem(manifest: Manifest) -> str | None:
    """Return what a cache cannot have though each value by itself is possible, or None."""
    names = [field.name for field in manifest.fields]
    if len(set(names)) < len(names):
        return f"arrays named {names}"
    for field in manifest.fields:
        size = np.dtype(field.dtype).itemsize * math.prod(field.shape)
        if len(field.shape) != len(field.dimensions) or size > _PAIR_LIMIT:
            return f"array {field}"
    if manifest.profile == COMPACT and not folded(COMPACT, manifest.fields, manifest.classes):
        arrays = ", ".join(f"{name} {kind}" for name, kind in _arrays(manifest).items())
        return f"profile compact of {arrays}: it needs a uint8 or int16 for each class"
    if (block := manifest.shard_samples) is not None:
        pair = sum(np.dtype(f.dtype).itemsize * math.prod(f.shape) for f in manifest.fields)
        if block > manifest.samples or (block - 1) * pair >= _SHARD_LIMIT:
            return f"shards of {block} samples of {pair:,} bytes, of {count(manifest.samples, 'sample')}"
    means, stds = (len(manifest.pixels["normalisation"][name]) for name in ("mean", "std"))
    return f"{means} means and {stds} standard deviations" if means != stds else None


def _arrays(manifest: Manifest) -> dict[str, str]:
    return {f.name: f"{f.dtype}{list(f.shape)}" for f in manifest.fields}


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{short(value)}'"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
