"""What a dump decides once, before anything is written: the manifest, and the teacher's forward pass."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bancache.cache.layout import shard_samples_of
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import find_manifest, manifest_of
from bancache.dumping.captured import open_forward
from bancache.dumping.check_teacher import check_teacher
from bancache.dumping.forward import TeacherForward
from bancache.dumping.recompute import compute_of
from bancache.dumping.settings import DumpSettings
from bancache.encodings import Encoding, parse_encoding
from bancache.errors import UsageError
from bancache.models.ensemble import members_of
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.environment import versions
from bancache.system.progress import Progress
from bancache.system.wording import count
from bancache.views.several_sizes import distinct

# Of views drawn at random, 5 taught less than labels alone do, and 50 as much as 400.
_FEW_VIEWS = 10


@dataclass(frozen=True)
class Binding:
    """What binds a cache, decided once for all its shards.

    ``bytes_per_pair`` is measured on the first batch; ``bound`` is that of the settings.
    """

    manifest: Manifest
    bytes_per_pair: float
    bound: tuple[float, float] | None


@dataclass(frozen=True)
class Prepared:
    """A dump that can begin: what binds the cache, and what runs the teacher on its shards."""

    binding: Binding
    forward: TeacherForward


def prepare(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    settings: DumpSettings,
    begun: str | os.PathLike[str] | None = None,
    *,
    device: torch.device,
    progress: Progress,
) -> Prepared:
    """Decide what binds a cache, and run the teacher on the first batch; nothing is written. Arguments as of ``dump``.

    A cache that lies at ``begun`` decides how many samples a shard has, and must have the same manifest.
    """
    stored = None if begun is None else find_manifest(Path(begun))
    kept = None if stored is None else manifest_of(stored)
    _require_largest(teacher, data, settings)
    settings = _without_own_size(_with_shards(settings, kept, data), data)
    _warn_of_few_views(settings, progress)
    encoding = parse_encoding(settings.encoding, len(data.classes))
    forward = open_forward(teacher, data, encoding, settings, device, progress)
    golden = forward.renderer.golden(settings.num_views)
    manifest = _manifest(teacher, data, spec, settings, encoding, golden, device)
    if kept is not None:
        kept.require_same(manifest)  # also asked under the lock, but before the teacher runs
    bytes_per_pair = forward.probe()
    check_teacher(teacher, data, settings, device=device, progress=progress)
    return Prepared(Binding(manifest, bytes_per_pair, settings.bound), forward)


def _with_shards(settings: DumpSettings, kept: Manifest | None, data: ImageSet) -> DumpSettings:
    """Return settings with the samples of a shard: those of a cache that goes on, which an earlier version may have made."""
    samples, fields = len(data), parse_encoding(settings.encoding, len(data.classes)).fields()
    if kept is not None and (kept.samples, kept.fields, kept.profile) == (samples, fields, settings.profile):
        return replace(settings, shard_samples=kept.shard_samples)
    asked = settings.shard_samples or shard_samples_of(samples, fields, settings.profile)
    return replace(settings, shard_samples=asked)


def _require_largest(teacher: Teacher, data: ImageSet, settings: DumpSettings) -> None:
    """Refuse an ensemble of several sizes with another size than the largest: the manifest's hash of pixels is of that."""
    if not teacher.sizes or (settings.size or (data.height, data.width)) == distinct(teacher.sizes)[-1]:
        return
    (height, width), given = distinct(teacher.sizes)[-1], settings.size or (data.height, data.width)
    raise UsageError(
        f"the largest size of the ensemble's teachers is {height}x{width}, that of the settings {given[0]}x{given[1]}",
        hint=f"give DumpSettings size=({height}, {width})",
    )


def _without_own_size(settings: DumpSettings, data: ImageSet) -> DumpSettings:
    """Return settings without a size that is the images' own: such caches are those of earlier versions."""
    own = data.uniform and settings.size == (data.height, data.width)
    return replace(settings, size=None) if own else settings


def _warn_of_few_views(settings: DumpSettings, progress: Progress) -> None:
    if settings.space.is_endless and settings.num_views < _FEW_VIEWS:
        progress.warn(
            f"{count(settings.num_views, 'view')} of each image, of any number that '{settings.space.name}' draws: with "
            f"fewer than {_FEW_VIEWS}, students may do worse than without a teacher; use --num-views 50"
        )


def _manifest(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    settings: DumpSettings,
    encoding: Encoding,
    golden: str,
    device: torch.device,
) -> Manifest:
    normalization = settings.normalization.to_dict()
    return Manifest(
        samples=len(data),
        num_views=settings.num_views,
        classes=len(data.classes),
        fields=encoding.fields(),
        encoding=encoding.to_config(),
        view_space=settings.space.to_dict(),
        pixels={
            "normalisation": normalization,
            "golden": golden,
            **({} if settings.size is None else {"size": list(settings.size)}),
        },
        dataset={
            "spec": spec.to_dict(),
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "image_shape": list(data.shape) if data.uniform else None,
            "chance": data.chance,
        },
        teacher={
            "fingerprint": teacher.fingerprint,
            "architecture": teacher.architecture,
            "generation": teacher.header.get("generation", 0),
            "accuracy": teacher.header.get("test", {}).get("accuracy"),
            "recipe": teacher.header.get("recipe"),
            **({"fine_tuned": True} if teacher.header.get("start_weights") else {}),
            "lineage": teacher.header.get("lineage", []),
            "path": teacher.path,
            "input": None if teacher.input is None else teacher.input.to_dict(),
            **members_of(teacher),
        },
        compute=compute_of(teacher, settings, device),
        created_with=versions(device),
        profile=settings.profile,
        shard_samples=settings.shard_samples,
    )
