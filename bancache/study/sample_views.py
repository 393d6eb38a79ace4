"""Samples of a cache for the report: a few views as students see them, with the teacher's likeliest classes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.reader import Cache
from bancache.loader.cache_targets import CacheTargets
from bancache.sources.image_set import ImageSet
from bancache.study.view_pictures import ViewPictures, png
from bancache.system.files import write_json
from bancache.views.params import params_text

NAME = "views.json"
_IMAGES, _VIEWS, _TOP = 3, 4, 5


def write_sample_views(cache: Cache, data: ImageSet, out: Path) -> None:
    """Write a JSON file with views of a few training images and the teacher's five likeliest classes for each view.

    The images are spread evenly over the data set. Each shows its first views, before normalization, as PNG in base64.
    The probabilities are read from the cache at temperature 1.
    """
    cache.require_dataset(data.fingerprint)
    manifest = cache.manifest
    samples = np.unique(np.linspace(0, len(data) - 1, _IMAGES).round().astype(np.int64))
    pictures = ViewPictures(manifest, data, samples.tolist())
    targets = CacheTargets(cache, keep="none")
    shown: list[dict[str, Any]] = [
        {"sample": int(sample), "label": data.classes[int(data.labels[sample])], "views": []}
        for sample in samples
    ]
    for view_index in range(min(_VIEWS, manifest.num_views)):
        targets.begin(view_index, view_index)
        rows = targets.probabilities(torch.from_numpy(samples), torch.empty(0)).numpy()
        seen = pictures.view_ids(view_index), pictures.pixels(view_index), pictures.params(view_index)
        for entry, view_id, image, params, row in zip(shown, *seen, rows, strict=True):
            entry["views"].append(
                {
                    "view": int(view_id),
                    "params": params_text(params),
                    "png": base64.b64encode(png(image)).decode("ascii"),
                    "top": _top(row, data),
                }
            )
    views_name = pictures.space.name
    write_json(out, {"generation": manifest.teacher["generation"], "views": views_name, "images": shown})


def _top(probabilities: NDArray[np.float32], data: ImageSet) -> list[list[Any]]:
    best = np.argsort(-probabilities, kind="stable")[:_TOP]
    return [[data.classes[int(index)], round(float(probabilities[index]), 4)] for index in best]
