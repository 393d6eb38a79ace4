"""Run a teacher again exactly as for an existing cache: the same weights, images, pixels and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bancache.cache.manifest import Manifest
from bancache.cache.reader import Cache
from bancache.dumping.captured import open_forward
from bancache.dumping.forward import TeacherForward
from bancache.dumping.settings import DumpSettings
from bancache.encodings import from_config
from bancache.errors import MismatchError
from bancache.models.ensemble import ensemble
from bancache.models.teacher import Teacher, load_checkpoint_teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.system.device import arithmetic
from bancache.system.fingerprint import short
from bancache.system.progress import Progress
from bancache.views.factory import renderer_of_some
from bancache.views.model_input import ModelInput, Normalization
from bancache.views.renderer import GOLDEN_IMAGES
from bancache.views.space import ViewSpace


def settings_of(manifest: Manifest) -> DumpSettings:
    """Return the settings that a cache was dumped with."""
    return DumpSettings(
        space=ViewSpace.from_dict(manifest.view_space),
        num_views=manifest.num_views,
        encoding=manifest.encoding["name"],
        batch_size=manifest.compute["batch_size"],
        normalization=Normalization.from_dict(manifest.pixels["normalisation"]),
        profile=manifest.profile,
        size=manifest.teacher_size,
        shard_samples=manifest.shard_samples,
    )


def compute_of(teacher: Teacher, settings: DumpSettings, device: torch.device) -> dict[str, Any]:
    """Return what decides a forward pass's bytes beside weights and pixels, for the manifest."""
    compute = {"batch_size": settings.batch_size, "precision": teacher.precision, **arithmetic(device)}
    return {**compute, "outputs": "probabilities"} if teacher.outputs == "probabilities" else compute


def forward_of(manifest: Manifest, teacher: Teacher, data: ImageSet, device: torch.device) -> TeacherForward:
    """Return a forward pass with the settings that a cache was dumped with."""
    encoding = from_config(manifest.encoding, manifest.classes, manifest.fields)
    return open_forward(teacher, data, encoding, settings_of(manifest), device)


def load_again(
    manifest: Manifest,
    named: Sequence[tuple[str, str | Path | None]],
    images: ImageSet,
    device: torch.device,
    progress: Progress | None = None,
) -> Teacher:
    """Load the teacher that a cache was made from, or the ensemble, with the cache's precision.

    ``named`` are names and weights that the user typed, which may choose code. Without any, the paths in the manifest,
    which may come from a stranger, are opened as checkpoints or not at all.

    Raises:
        CheckpointError: A file is missing or damaged; errors are those of ``load_teacher``.
        MismatchError: One of several is not in the cache's ensemble, or not so often.
    """
    precision = manifest.compute["precision"]
    if not named:
        own = [load_checkpoint_teacher(p, device=device, precision=precision) for p in manifest.teacher_paths]
        return _together(own, manifest)
    size = manifest.teacher_size or (images.height, images.width)
    sizes = {each["path"]: each.get("size", size) for each in manifest.teacher.get("members", ())}
    teachers = [
        load_teacher(
            name,
            device=device,
            weights=weights,
            precision=precision,
            shape=(len(images.classes), images.channels, *sizes.get(name, size)),
            outputs=manifest.compute.get("outputs"),
            progress=progress,
        )
        for name, weights in named
    ]
    return _together(teachers, manifest)


def _together(teachers: list[Teacher], manifest: Manifest) -> Teacher:
    """Return the only teacher, or the ensemble, whose members have the inputs that the cache records."""
    if "members" not in manifest.teacher:
        return teachers[0]
    # One teacher may be several members, at other sizes.
    left, members, sizes = list(manifest.teacher["members"]), [], []
    for teacher in teachers:
        member = next((each for each in left if each["fingerprint"] == teacher.fingerprint), None)
        if member is None:
            known = [short(each["fingerprint"]) for each in manifest.teacher["members"]]
            raise MismatchError.between(
                f"{teacher.path}: teacher",
                stored=f"{', '.join(known)} (the cache's ensemble)",
                given=f"'{short(teacher.fingerprint)}'",
                hint="name the cache's own teachers with --teacher",
            )
        left.remove(member)
        normalization = Normalization.from_dict(member["normalisation"])
        own = ModelInput(None, normalization, member["input"]["origin"])
        outputs = "probabilities" if member["outputs"] == "probabilities" else teacher.outputs
        members.append(replace(teacher, input=own, outputs=outputs))
        sizes.append(member.get("size"))
    return ensemble(members, manifest.teacher["combine"], [tuple(size) for size in sizes if size] or None)


def require_same_inputs(cache: Cache, teacher: Teacher, data: ImageSet) -> None:
    """Refuse another teacher, other images, or views that are rendered to other pixels than at the dump."""
    require_same_teacher(cache.manifest, teacher, data)
    require_same_pixels(cache.manifest, data)


def require_same_pixels(manifest: Manifest, data: ImageSet) -> None:
    """Refuse views that are rendered to other pixels than at the dump; MismatchError names both hashes."""
    manifest.require_pixels(golden_of(manifest, data, manifest.num_views))


def require_same_teacher(manifest: Manifest, teacher: Teacher, data: ImageSet) -> None:
    """Refuse another teacher or other images than the cache was made from; MismatchError names both fingerprints."""
    manifest.require_dataset(data.fingerprint)
    stored = manifest.teacher["fingerprint"]
    if teacher.fingerprint != stored:
        raise MismatchError.between(
            "teacher",
            stored=f"'{short(stored)}'",
            given=f"'{short(teacher.fingerprint)}'",
            hint="name the cache's own teacher with --teacher",
        )


def golden_of(manifest: Manifest, data: ImageSet, num_views: int) -> str:
    """Return the hash of a few rendered views, as a cache of ``num_views`` views has it."""
    settings, first = settings_of(manifest), np.arange(min(GOLDEN_IMAGES, len(data)))
    renderer, _ = renderer_of_some(
        data.images, first, settings.space, settings.normalization, size=settings.size
    )
    return renderer.golden(num_views)
