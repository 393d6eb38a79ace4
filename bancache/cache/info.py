"""Facts about a cache, finished or not: contents, teacher, size, fidelity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bancache.cache.layout import Layout
from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest
from bancache.cache.reader import digests_of
from bancache.cache.records import count_records
from bancache.report.basis import barely_beats
from bancache.system.address import Address, as_place
from bancache.system.bucket import Bucket
from bancache.system.files import bytes_below, json_bytes
from bancache.views import ViewSpace


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a cache's facts as JSON values, without reading encoded targets.

    ``bytes`` counts every file. ``bytes_per_pair`` is bytes / (samples · views), and null while the cache is
    incomplete. ``mixed_devices`` are the kinds of device that made shards beside the one in ``compute``. ``shards_done``
    is ``shards`` in a complete cache. ``teacher_size`` is height and width of the views that the teacher saw, null if they
    are those of the images.

    Raises:
        CacheDamagedError: The manifest is missing or was changed.
        MismatchError: A newer format wrote it.
        StorageError: The object store at an address cannot be reached or refuses.
    """
    path = as_place(path)
    stored = read_manifest(path)
    manifest = manifest_of(stored)
    layout = Layout(manifest)
    complete = bool(stored["complete"])
    size = _bytes_at(path, stored, layout)
    num_pairs = manifest.samples * manifest.num_views
    summary = stored.get("summary", {})
    return {
        "path": str(path),
        "format_version": manifest.format_version,
        "profile": manifest.profile,
        "complete": complete,
        "shards": layout.count,
        "shards_done": layout.count if complete else count_records(path),
        "samples": manifest.samples,
        "views": manifest.num_views,
        "classes": manifest.classes,
        "encoding": manifest.encoding,
        "bytes": size,
        "bytes_per_pair": size / num_pairs if complete else None,
        "view_space": manifest.view_space,
        "teacher": manifest.teacher,
        "teacher_size": manifest.teacher_size,
        "dataset": {key: value for key, value in manifest.dataset.items() if key != "classes"},
        "compute": manifest.compute,
        "created_with": manifest.created_with,
        **{
            name: summary.get(name)
            for name in ("fidelity", "noise_floor", "teacher_accuracy", "teacher_mean_max_probability")
        },
        "mixed_devices": summary.get("mixed_devices", []),
        # Older caches have no share of the most frequent label.
        "chance": manifest.dataset.get("chance") or 1 / manifest.classes,
        "digest": stored.get("digest"),
    }


def _bytes_at(path: Path, stored: dict[str, Any], layout: Layout) -> int:
    """Return the size of all files; of a complete cache in an object store, from its manifest alone."""
    if not isinstance(path, Address):
        return bytes_below(path)
    if not stored["complete"]:
        return sum(found.size for found in Bucket(str(path)).listed().values())
    listed = digests_of(stored, layout, path / MANIFEST).values()
    return sum(digest.size for digest in listed) + len(json_bytes(stored))


def model_name(teacher: dict[str, Any]) -> str:
    """Return what lines and tables call the model of a manifest's teacher.

    >>> model_name({"architecture": {"name": "a"}, "members": [{"architecture": {"name": name}} for name in "aa"]})
    'ensemble of 2 a'
    """
    names = [str(member["architecture"]["name"]) for member in teacher.get("members", ())]
    if not names:
        return str(teacher["architecture"]["name"])
    return f"ensemble of {f'{len(names)} {names[0]}' if len(set(names)) == 1 else ', '.join(names)}"


def accuracy_warning(
    accuracy: float, chance: float, own: float | None, view_space: dict[str, Any]
) -> str | None:
    """Return a warning if a teacher is right on little more than chance, or on far less than its checkpoint says.

    ``accuracy`` is that on the views, ``own`` the test accuracy in the checkpoint, None for a third-party model. Of mixed
    views a good teacher often names the partner, so there is no warning.
    """
    if ViewSpace.from_dict(view_space).layout.mixed:
        return None
    if barely_beats(1 - accuracy, 1 - chance):
        return (
            f"the teacher is right on {accuracy:.1%} of the views; naming the largest class every time "
            f"is right on {chance:.1%}"
        )
    if own is not None and accuracy < own - 0.1:
        return f"the teacher is right on {accuracy:.1%} of the views; its checkpoint says {own:.1%} on test images"
    return None
