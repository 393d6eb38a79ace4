"""The pictures that teacher and student see at an address, and what was done to them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.manifest import Manifest
from bancache.cache.where import where
from bancache.dumping.recompute import require_same_pixels
from bancache.sources.image_set import ImageSet
from bancache.system.files import make_directory, write_atomically
from bancache.views.factory import renderer_of_some
from bancache.views.model_input import Normalization
from bancache.views.params import params_of
from bancache.views.pictures import shapes_of
from bancache.views.space import ViewSpace


class ViewPictures:
    """Views of some samples of a cache before normalization.

    Attributes:
        space: The cache's views.
        size: Height and width of the pictures.
    """

    def __init__(
        self, manifest: Manifest, data: ImageSet, samples: Sequence[int], size: tuple[int, int] | None = None
    ) -> None:
        """Choose the pictures of ``samples``, at the teacher's size if none is given."""
        self.space = ViewSpace.from_dict(manifest.view_space)
        self._samples, self._shapes = np.asarray(samples, np.int64), shapes_of(data.images)
        self._renderer, self._inside = renderer_of_some(
            data.images,
            self._samples,
            self.space,
            Normalization.from_dict(manifest.pixels["normalisation"]),
            size=size or manifest.teacher_size,
        )
        self.size = self._renderer.size

    def view_ids(self, view_index: int) -> NDArray[np.int64]:
        """Return the samples' view ids at a view index, int64 (B,)."""
        return self.space.view_ids(self._samples, view_index)

    def pixels(self, view_index: int) -> NDArray[np.uint8]:
        """Return the samples' views at a view index, uint8 (B, H, W, C)."""
        rows = self._renderer.rows(self._inside, self.view_ids(view_index))
        views: NDArray[np.uint8] = self._renderer.pixels(
            torch.from_numpy(self._inside), torch.from_numpy(rows)
        ).numpy()
        return views

    def params(self, view_index: int) -> list[dict[str, Any]]:
        """Return what ``params_of`` says of the samples' views at a view index."""
        records = self.space.records(self._samples, self.view_ids(view_index), self._shapes.sizes)
        return [params_of(record, self.space.layout, self._shapes.channels) for record in records]


def write_views(
    manifest: Manifest,
    data: ImageSet,
    samples: Sequence[int],
    view_indices: Sequence[int],
    out: Path,
    *,
    size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """Write what teacher and student see for each sample and view index as PNG, and return what is known of each view.

    The cache need not be complete. Pixels are those before normalization.

    Args:
        manifest: Of the cache.
        data: The images that it was made for.
        samples: Positions in the data set.
        view_indices: Those of the cache.
        out: A folder, which is made if it is missing.
        size: Height and width of the student's views; by default those of the teacher's.

    Returns:
        For each sample and each of its views ``sample``, ``view``, ``label``, ``path``, ``params`` (see ``params_of``),
        and for ``teacher`` and ``student`` the ``size`` and the ``file``; as JSON values.

    Raises:
        MismatchError: The images are others than those of the cache, or views are rendered to other pixels here.
        StorageError: A file cannot be written.
        UsageError: The cache has no such sample or view, or its views cannot have this size.
    """
    manifest.require_pairs(samples, view_indices)
    manifest.require_dataset(data.fingerprint)
    require_same_pixels(manifest, data)
    seen = {
        "teacher": ViewPictures(manifest, data, samples),
        "student": ViewPictures(manifest, data, samples, size),
    }
    make_directory(out)
    shown: dict[tuple[int, int], dict[str, Any]] = {}
    for view_index in view_indices:
        for one in where(manifest, data, samples, view_index):
            shown[one["sample"], view_index] = one
        for who, pictures in seen.items():
            for sample, pixels in zip(samples, pictures.pixels(view_index), strict=True):
                file = out / f"sample{sample}-view{view_index}-{who}.png"
                write_atomically(file, png(pixels))
                shown[sample, view_index][who] = {"size": list(pictures.size), "file": str(file)}
    return [shown[sample, view_index] for sample in samples for view_index in view_indices]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W, C) as PNG: in color if it has three channels, else its first channel."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(stream, format="PNG")
    return stream.getvalue()
