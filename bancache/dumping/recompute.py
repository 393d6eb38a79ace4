"""Asking a teacher again, exactly as a cache was asked: the same weights, images, pixels and batches, or not at all."""

from __future__ import annotations

from dataclasses import replace

import torch

from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.reader import Cache
from bancache.dumping.forward import TeacherForward
from bancache.dumping.run import DumpSettings
from bancache.encodings import from_config
from bancache.errors import MismatchError
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.system.fingerprint import short
from bancache.views.renderer import Normalization, Renderer
from bancache.views.space import ViewSpace

# What a golden hash is taken of; images beyond these need no rendering.
_GOLDEN = 16


def settings_of(manifest: Manifest, *, num_views: int | None = None) -> DumpSettings:
    """Return the settings that a cache was dumped with, or those with another number of views."""
    return DumpSettings(
        space=ViewSpace.from_dict(manifest.view_space),
        num_views=num_views or manifest.num_views,
        encoding=manifest.encoding["name"],
        batch_size=manifest.compute["batch_size"],
        normalization=Normalization.from_dict(manifest.pixels["normalisation"]),
        profile=manifest.profile,
    )


def require_same_question(cache: Cache, teacher: Teacher, data: ImageSet) -> None:
    """Refuse to ask another teacher, about other images, or about views that come out as other pixels.

    Raises:
        MismatchError: Naming what differs, with both values.
    """
    cache.require_dataset(data.fingerprint)
    require_teacher(cache.manifest, teacher)
    stored, found = cache.manifest.pixels["golden"], golden(data, cache.manifest, cache.manifest.num_views)
    if stored != found:
        raise MismatchError.between(
            "pixels of the same views",
            stored=f"'{short(stored)}'",
            given=f"'{short(found)}'",
            hint="a library renders them otherwise here than where the cache was made; report this",
        )


def require_teacher(manifest: Manifest, teacher: Teacher) -> None:
    """Refuse another teacher than the one that a cache was made from.

    Raises:
        MismatchError: Their fingerprints differ.
    """
    if teacher.fingerprint != manifest.teacher["fingerprint"]:
        raise MismatchError.between(
            "teacher",
            stored=f"'{short(manifest.teacher['fingerprint'])}'",
            given=f"'{short(teacher.fingerprint)}'",
            hint="name the checkpoint that the cache was dumped from with --teacher",
        )


def answers_alike(cache: Cache, teacher: Teacher, data: ImageSet, device: torch.device) -> bool:
    """Whether the teacher's answer to the first batch of a cache becomes the very bytes that the cache holds.

    On the machine and libraries of the dump it does; elsewhere the last bits of a forward pass may be others.
    """
    settings = settings_of(cache.manifest)
    first = Layout(cache.manifest).shard(0)
    batch = replace(first, stop=min(first.stop, settings.batch_size))
    few = data.first(batch.stop)
    renderer = Renderer(few.images, settings.space, settings.normalization, device=device)
    encoding = from_config(cache.manifest.encoding, cache.manifest.classes)
    fields, _ = TeacherForward(teacher, few, renderer, encoding, settings).answer(batch, lambda done: None)
    stored = cache.shard(first)
    return all(fields[name].tobytes() == stored[name][: batch.stop].tobytes() for name in fields)


def with_num_views(manifest: Manifest, num_views: int, data: ImageSet) -> Manifest:
    """Return the promise of the same cache with another number of views; one view in some view index looks the same."""
    return replace(
        manifest, num_views=num_views, pixels={**manifest.pixels, "golden": golden(data, manifest, num_views)}
    )


def golden(data: ImageSet, manifest: Manifest, num_views: int) -> str:
    """Return the hash of a few rendered views, as a cache of ``views`` views keeps it."""
    settings = settings_of(manifest)
    return Renderer(data.images[:_GOLDEN], settings.space, settings.normalization).golden(num_views)
