"""Samples of a cache for the report: a few views as students see them, with the teacher's likeliest classes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.reader import Cache
from bancache.loader.cache_targets import CacheTargets
from bancache.sources.image_set import ImageSet
from bancache.system.files import write_json
from bancache.views.factory import renderer_of_some
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace

NAME = "views.json"
_TOP = 5


def write_sample_views(cache: Cache, data: ImageSet, out: Path, *, images: int = 3, views: int = 4) -> None:
    """Write a JSON file with views of a few training images and the teacher's five likeliest classes for each view.

    The images are spread evenly over the data set. Each shows its first views, before normalization, as PNG in base64.
    The probabilities are read from the cache at temperature 1.
    """
    cache.require_dataset(data.fingerprint)
    manifest = cache.manifest
    samples = np.unique(np.linspace(0, len(data) - 1, images).round().astype(np.int64))
    space = ViewSpace.from_dict(manifest.view_space)
    normalization = Normalization.from_dict(manifest.pixels["normalisation"])
    renderer, inside = renderer_of_some(
        data.images, samples, space, normalization, size=manifest.teacher_size
    )
    targets = CacheTargets(cache, keep="none")
    shown: list[dict[str, Any]] = [
        {"sample": int(sample), "label": data.classes[int(data.labels[sample])], "views": []}
        for sample in samples
    ]
    for view_index in range(min(views, manifest.num_views)):
        targets.begin(view_index, view_index)
        ids = space.view_ids(samples, view_index)
        pixels = renderer.pixels(
            torch.from_numpy(inside), torch.from_numpy(renderer.rows(samples, ids))
        ).numpy()
        rows = targets.probabilities(torch.from_numpy(samples), torch.empty(0)).numpy()
        for entry, view_id, image, row in zip(shown, ids, pixels, rows, strict=True):
            entry["views"].append({"view": int(view_id), "png": _png(image), "top": _top(row, data)})
    write_json(out, {"generation": manifest.teacher["generation"], "views": space.name, "images": shown})


def _top(probabilities: NDArray[np.float32], data: ImageSet) -> list[list[Any]]:
    best = np.argsort(-probabilities, kind="stable")[:_TOP]
    return [[data.classes[int(index)], round(float(probabilities[index]), 4)] for index in best]


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return an image (H, W, C) as PNG in base64: in color if it has three channels, else its first channel."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
