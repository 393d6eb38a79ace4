"""A cache of a few kilobytes with several regions a slot, written from arrays that its addresses decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache import Layout, Manifest, Region
from bancache.cache.opening import open_writer
from bancache.cache.reader import Slab, open_cache
from bancache.encodings.fields import FieldSpec

# For monkeypatching: forty samples of fourteen bytes then make three regions, the last one shorter.
REGION_BYTES = "bancache.cache.layout._REGION_BYTES"
MAPPED_BYTES = "bancache.cache.layout._MAPPED_BYTES"
SMALL_REGION = 200

Q = FieldSpec("q", "uint8", (10,), ("class",))
SHIFT = FieldSpec("shift", "float32", (), ())
# Bits of a sha256, as every fingerprint has them.
DATA, TEACHER = "d" * 64, "e" * 64


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "samples": 40,
        "slots": 3,
        "classes": 10,
        "fields": (Q, SHIFT),
        "encoding": {"name": "test"},
        "view_space": {"id": "lattice-1", "pad": 1},
        "pixels": {"golden": "00"},
        "dataset": {"fingerprint": DATA, "spec": {}, "classes": ["a"]},
        "teacher": {"fingerprint": TEACHER},
        "compute": {"batch_size": 100},
        "created_with": {"bancache": "0"},
    }
    return Manifest(**{**values, **changes})


def fields(promise: Manifest, region: Region) -> dict[str, NDArray[Any]]:
    """Return what goes into a region: random bits, a finite number for each float."""
    rng = np.random.default_rng([region.slot, region.start])
    rows = region.stop - region.start
    return {
        field.name: rng.integers(0, 120, (rows, *field.shape)).astype(field.dtype) for field in promise.fields
    }


def facts(region: Region) -> dict[str, Any]:
    return {"rows": region.stop - region.start, "third": 1 / 3}


def summarise(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": sum(one["rows"] for one in found), "third": found[0]["third"]}


def write(
    path: Path,
    promise: Manifest | None = None,
    *,
    order: Callable[[list[Region]], Iterable[Region]] = list,
    overwrite: bool = False,
) -> Path:
    """Write a whole cache, or the rest of one."""
    promise = promise or manifest()
    with open_writer(path, promise, overwrite=overwrite) as writer:
        if writer is not None:
            for region in order(writer.pending()):
                writer.write_region(region, fields(promise, region), facts(region))
            writer.finish(summarise)
    return path


def write_some(path: Path, indices: Iterable[int], promise: Manifest | None = None) -> Path:
    """Write a few regions and leave."""
    promise = promise or manifest()
    with open_writer(path, promise) as writer:
        assert writer is not None
        for index in indices:
            region = writer.layout.region(index)
            writer.write_region(region, fields(promise, region), facts(region))
    return path


def expected_slab(promise: Manifest, slot: int) -> Slab:
    regions = [region for region in Layout(promise).regions() if region.slot == slot]
    parts = [fields(promise, region) for region in regions]
    return {f.name: np.concatenate([part[f.name] for part in parts]) for f in promise.fields}


def check_slab(path: Path, slot: int, promise: Manifest | None = None) -> None:
    """A slot holds what was written, bit for bit."""
    promise = promise or manifest()
    found, expected = open_cache(path).slab(slot), expected_slab(promise, slot)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
