"""What a cache holds, from whom, how large and how faithful; works on one that is not finished, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import RECORDS, read_manifest


def describe(path: Path) -> dict[str, Any]:
    """Return a cache's facts as JSON values, without reading an entry.

    ``bytes`` counts every file of the store; an entry is one sample's one view, so ``bytes_per_entry`` is
    bytes / (samples · views), and null while the cache is incomplete.

    Raises:
        CacheDamagedError: There is no manifest, or it was changed.
        MismatchError: It was written by a newer format.
    """
    stored = read_manifest(path)
    manifest = Manifest.from_dict(stored["promise"])
    layout = Layout(manifest)
    complete = bool(stored["complete"])
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    entries = manifest.samples * manifest.num_views
    summary = stored.get("summary", {})
    recorded = len(list((path / RECORDS).glob("*.json"))) if (path / RECORDS).is_dir() else 0
    return {
        "path": str(path),
        "format_version": manifest.format_version,
        "profile": manifest.profile,
        "complete": complete,
        "regions": layout.count,
        "regions_done": layout.count if complete else recorded,
        "samples": manifest.samples,
        "views": manifest.num_views,
        "classes": manifest.classes,
        "encoding": manifest.encoding,
        "bytes": size,
        "bytes_per_entry": size / entries if complete else None,
        "view_space": manifest.view_space,
        "teacher": manifest.teacher,
        "dataset": {key: value for key, value in manifest.dataset.items() if key != "classes"},
        "compute": manifest.compute,
        "created_with": manifest.created_with,
        "fidelity": summary.get("fidelity"),
        "noise_floor": summary.get("noise_floor"),
        "teacher_accuracy": summary.get("teacher_accuracy"),
        "teacher_mean_max_probability": summary.get("teacher_mean_max_probability"),
        "digest": stored.get("digest"),
    }
