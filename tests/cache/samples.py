"""A small manifest, and deterministic fields for its regions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache import Manifest, Region
from bancache.fields import FieldSpec


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "samples": 1000,
        "slots": 3,
        "classes": 10,
        "fields": (
            FieldSpec("q", "uint8", (10,), ("class",)),
            FieldSpec("shift", "float32", (), ()),
        ),
        "encoding": {"name": "test"},
        "view_space": {"id": "lattice-1", "pad": 1},
        "pixels": {"golden": "00"},
        "dataset": {"fingerprint": "d" * 64, "spec": {}, "classes": ["a"]},
        "teacher": {"fingerprint": "t" * 64},
        "compute": {"batch_size": 100},
        "created_with": {"bancache": "0"},
    }
    return Manifest(**{**values, **changes})


def fields(region: Region) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(region.index)
    rows = region.stop - region.start
    return {
        "q": rng.integers(0, 256, (rows, 10), dtype=np.uint8),
        "shift": rng.standard_normal(rows).astype(np.float32),
    }
