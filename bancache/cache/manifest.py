"""Manifest: what a cache promises, as plain values; and how two promises are compared.

The view space and the encoding are opaque JSON here: the cache keeps them and does not read them, so a new
encoding touches no storage code and a new layout touches no arithmetic.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bancache.errors import CacheDamagedError, MismatchError
from bancache.fields import FieldSpec
from bancache.fingerprint import short

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """Everything about a cache that is known before its first entry is written.

    Attributes:
        samples: N, training images in the data set's order.
        slots: V, views stored of each sample.
        classes: C.
        fields: The arrays of an entry, as the encoding declares them.
        encoding: The encoding's config.
        view_space: The view space's config; its seed decides which view each slot of a sample is.
        pixels: ``normalisation``, and ``golden``: a hash of a few rendered views.
        dataset: ``spec`` to open it again, ``fingerprint`` of content and order, ``classes``: their names.
        teacher: ``fingerprint`` of the weights, ``architecture``, ``generation``, ``lineage``, ``path``.
        compute: ``batch_size`` and ``precision`` of the teacher's forward pass: a region's bytes depend on them.
        created_with: Versions of the libraries that took part.
    """

    samples: int
    slots: int
    classes: int
    fields: tuple[FieldSpec, ...]
    encoding: dict[str, Any]
    view_space: dict[str, Any]
    pixels: dict[str, Any]
    dataset: dict[str, Any]
    teacher: dict[str, Any]
    compute: dict[str, Any]
    created_with: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the format's version first."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["fields"] = [
            {"name": f.name, "dtype": f.dtype, "shape": list(f.shape), "dimensions": list(f.dimensions)}
            for f in self.fields
        ]
        return {"format_version": FORMAT_VERSION, **plain}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Manifest:
        """Read what ``to_dict`` wrote.

        Raises:
            MismatchError: A newer format.
            CacheDamagedError: Something is missing or makes no sense.
        """
        version = values.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise MismatchError(
                f"the cache has format {version}, this bancache reads up to {FORMAT_VERSION}",
                hint="upgrade bancache",
            )
        try:
            rest = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            rest["fields"] = tuple(
                FieldSpec(f["name"], f["dtype"], tuple(f["shape"]), tuple(f["dimensions"]))
                for f in rest["fields"]
            )
            sizes = (rest["samples"], rest["slots"], rest["classes"])
        except (KeyError, TypeError) as error:
            raise CacheDamagedError(f"the manifest is incomplete: {error!r}") from error
        if version != FORMAT_VERSION or not all(isinstance(s, int) and 0 < s < 1 << 40 for s in sizes):
            raise CacheDamagedError(f"the manifest makes no sense: format {version}, sizes {sizes}")
        return cls(**rest)

    def require_same(self, other: Manifest) -> None:
        """Refuse to go on with a cache that promises something else.

        Raises:
            MismatchError: Naming the first thing that differs, with both values.
        """
        for subject, stored, given in _pairs(self, other):
            if stored != given:
                raise MismatchError.between(
                    subject,
                    stored=_shown(stored),
                    given=_shown(given),
                    hint="use the same settings, another --out, or --overwrite to start anew",
                )


def _pairs(ours: Manifest, theirs: Manifest) -> list[tuple[str, Any, Any]]:
    """Return what must agree, most telling first; where a file lies and which versions ran may differ."""
    return [
        ("data set", ours.dataset["fingerprint"], theirs.dataset["fingerprint"]),
        ("teacher", ours.teacher["fingerprint"], theirs.teacher["fingerprint"]),
        ("view space", ours.view_space, theirs.view_space),
        ("number of views", ours.slots, theirs.slots),
        ("encoding", ours.encoding, theirs.encoding),
        ("classes", ours.classes, theirs.classes),
        ("samples", ours.samples, theirs.samples),
        ("pixels", ours.pixels, theirs.pixels),
        ("teacher's forward pass", ours.compute, theirs.compute),
    ]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{short(value)}'"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
