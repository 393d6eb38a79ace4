"""A cache of a few kilobytes with several shards a view, filled with values that follow from view and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache import Layout, Manifest, Shard
from bancache.cache.opening import open_writer
from bancache.cache.reader import EncodedView, open_cache
from bancache.encodings.fields import FieldSpec

# For monkeypatching: forty samples of fourteen bytes then make three shards, the last one shorter.
SHARD_BYTES = "bancache.cache.layout._SHARD_BYTES"
MAPPED_BYTES = "bancache.cache.layout._MAPPED_BYTES"
SMALL_SHARD = 200

Q = FieldSpec("q", "uint8", (10,), ("class",))
SHIFT = FieldSpec("shift", "float32", (), ())
# Bits of a sha256, as every fingerprint has them.
DATA, TEACHER = "d" * 64, "e" * 64


def make_manifest(**changes: Any) -> Manifest:
    """Return a manifest; a change that is a dict replaces only its own keys."""
    values: dict[str, Any] = {
        "samples": 40,
        "num_views": 3,
        "classes": 10,
        "fields": (Q, SHIFT),
        "encoding": {"name": "test"},
        "view_space": {"id": "lattice-1", "pad": 1, "mode": "reflect", "flip": True, "seed": 0},
        "pixels": {"golden": "00", "normalisation": {"mean": [1.0], "std": [1.0]}},
        "dataset": {"fingerprint": DATA, "spec": {"source": "digits"}, "classes": ["a"]},
        "teacher": {"fingerprint": TEACHER, "architecture": {"name": "none"}, "generation": 0},
        "compute": {"batch_size": 100, "precision": "float32"},
        "created_with": {"bancache": "0"},
    }
    for name, value in changes.items():
        known = values.get(name)
        values[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return Manifest(**values)


manifest = make_manifest  # the old name, for tests elsewhere


def fields(manifest: Manifest, shard: Shard) -> dict[str, NDArray[Any]]:
    """Return a shard's values: random, finite in every dtype."""
    rng = np.random.default_rng([shard.view_index, shard.start])
    rows = shard.stop - shard.start
    return {
        field.name: rng.integers(0, 120, (rows, *field.shape)).astype(field.dtype)
        for field in manifest.fields
    }


def facts(shard: Shard) -> dict[str, Any]:
    return {"rows": shard.stop - shard.start, "third": 1 / 3}


def summarize(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": sum(one["rows"] for one in found), "third": found[0]["third"]}


def write(
    path: Path,
    manifest: Manifest | None = None,
    *,
    order: Callable[[list[Shard]], Iterable[Shard]] = list,
    overwrite: bool = False,
    join: bool = False,
) -> Path:
    """Write a whole cache, or the rest of one."""
    manifest = manifest or make_manifest()
    with open_writer(path, manifest, overwrite=overwrite, join=join) as writer:
        while writer is not None:
            for shard in order(writer.pending()):
                writer.write_shard(shard, fields(manifest, shard), facts(shard))
            if writer.finish(summarize):
                break
            assert writer.pending()
    return path


def write_some(path: Path, indices: Iterable[int], manifest: Manifest | None = None) -> Path:
    """Write a few shards and leave."""
    manifest = manifest or make_manifest()
    with open_writer(path, manifest) as writer:
        assert writer is not None
        for index in indices:
            shard = writer.layout.shard(index)
            writer.write_shard(shard, fields(manifest, shard), facts(shard))
    return path


def expected_view(manifest: Manifest, view_index: int) -> EncodedView:
    shards = [shard for shard in Layout(manifest).shards() if shard.view_index == view_index]
    parts = [fields(manifest, shard) for shard in shards]
    return {f.name: np.concatenate([part[f.name] for part in parts]) for f in manifest.fields}


def check_view(path: Path, view_index: int, manifest: Manifest | None = None) -> None:
    """Require that a view holds what was written, bit for bit."""
    manifest = manifest or make_manifest()
    found, expected = open_cache(path).read_view(view_index), expected_view(manifest, view_index)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
