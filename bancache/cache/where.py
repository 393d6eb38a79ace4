"""From an address in a cache to its picture: file, label, and what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bancache.cache.manifest import Manifest
from bancache.sources.image_set import ImageSet
from bancache.views.params import params_of
from bancache.views.pictures import shapes_of
from bancache.views.space import ViewSpace


def where(
    manifest: Manifest, data: ImageSet, samples: Sequence[int], view_index: int
) -> list[dict[str, Any]]:
    """Return for each sample ``sample``, ``view``, ``label``, ``path`` and ``params`` (see ``params_of``), as JSON values.

    Raises:
        MismatchError: The images are others than those of the cache.
        UsageError: The cache has no such sample or view.
    """
    manifest.require_pairs(samples, [view_index])
    manifest.require_dataset(data.fingerprint)
    space, shapes = ViewSpace.from_dict(manifest.view_space), shapes_of(data.images)
    numbers = np.asarray(samples, np.int64)
    records = space.records(numbers, space.view_ids(numbers, view_index), shapes.sizes)
    return [
        {
            "sample": sample,
            "view": view_index,
            "label": data.classes[int(data.labels[sample])],
            "path": data.paths[sample] if data.paths else None,
            "params": params_of(record, space.layout, shapes.channels),
        }
        for sample, record in zip(samples, records, strict=True)
    ]
