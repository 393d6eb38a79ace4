"""Views of small pictures of many sizes, from their records, by each of the renderers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.philox import philox
from bancache.system.ragged import RaggedImages
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures
from bancache.views.record_renderer import RecordRenderer

SIZE = (9, 11)
EVERYTHING = (
    "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0",
    "rrc0.3x2-trivial-erase0.5-cutmix1.0",
    "crop3-zero-flip-color0.4-erase0.25-mixup0.8",
)
NORMAL = Normalization((120.5, 110.25, 99.0), (50.0, 61.0, 70.5))


def pictures(name: str, count: int = 64) -> Pictures:
    """Return pictures of random pixels: of many sizes, or of one if the views need that."""
    words = philox((7, 7), np.arange(count), 0, 0, 0)
    heights, widths = ((word % np.uint64(17)).astype(np.int32) + 3 for word in words[:2])
    if ViewSpace.parse(name).needs_one_size:
        heights[:], widths[:] = 8, 8
    pixels = philox((7, 8), np.arange(int((heights * widths).sum()) * 3), 0, 0, 0)[0] & np.uint64(255)
    flat = pixels.astype(np.uint8)
    one_size = ViewSpace.parse(name).needs_one_size
    return Pictures.of(flat.reshape(-1, 8, 8, 3) if one_size else RaggedImages(flat, heights, widths, 3))


def addresses(name: str, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return random samples and view ids."""
    first, second, *_ = philox((7, 9), np.arange(count), 0, 0, 0)
    samples = (first % np.uint64(64)).astype(np.int64)
    return samples, ViewSpace.parse(name, seed=3).view_ids(samples, second % np.uint64(1000))


def shown(kind: type[RecordRenderer], name: str, count: int) -> torch.Tensor:
    """Return the pixels of ``count`` random views, uint8 (B, H, W, C)."""
    renderer = opened(kind, name)
    return renderer.pixels(*renderer.to_device(*addresses(name, count)))


def rendered(kind: type[RecordRenderer], name: str, count: int) -> torch.Tensor:
    """Return ``count`` random views, float32 (B, C, H, W)."""
    renderer = opened(kind, name)
    return renderer.render(*renderer.to_device(*addresses(name, count)))


def opened(kind: type[RecordRenderer], name: str) -> RecordRenderer:
    """Return a renderer of the pictures."""
    return kind(pictures(name), ViewSpace.parse(name, seed=3), NORMAL, size=SIZE, device="cpu")


def run() -> dict[str, NDArray[np.uint8]]:
    """Return the pixels of Triton's kernels, where triton interprets them."""
    from bancache.views.triton_record_renderer import TritonRecordRenderer

    return {name: shown(TritonRecordRenderer, name, 10).numpy() for name in EVERYTHING}
