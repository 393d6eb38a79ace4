"""The golden hashes of views that are rendered from records are frozen: caches on disk depend on every byte of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from contracts.photographs import EVERYTHING

from bancache.system.ragged import RaggedImages
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures

NORMAL = Normalization((0.0,) * 3, (1.0,) * 3)


def mosaics() -> RaggedImages:
    """Twenty pictures of different sizes, the same forever."""
    heights, widths = np.arange(20, 40, dtype=np.int32), np.arange(59, 39, -1, dtype=np.int32)
    count = int((heights * widths).sum()) * 3
    flat = (np.arange(count, dtype=np.uint64) * 2654435761 >> 7) % 251
    return RaggedImages(flat.astype(np.uint8), heights, widths, 3)


@pytest.mark.parametrize(
    ("name", "seed", "views", "records", "golden"),
    [
        ("rrc-flip", 0, 4, "314bb8f0a8ac37d1", "e3f0a25a31dfb54c"),
        (EVERYTHING, 1, 4, "39e378d48b6d56ac", "34690249bc737f98"),
        ("rrc0.25x1.5-trivial", 2, 4, "c97e44fb3dc502ca", "5343ef857c8c78da"),
        ("center", 0, 1, "18bfc5841e4f65e7", "5548edc60a2329f6"),
    ],
)
def test_what_a_name_draws_of_photographs_and_its_pixels_never_change(
    name: str, seed: int, views: int, records: str, golden: str
) -> None:
    space = ViewSpace.parse(name, seed=seed)
    samples = np.arange(20)
    drawn = space.records(samples, space.view_ids(samples, samples % views), Pictures.of(mosaics()).sizes)
    assert hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest()[:16] == records
    renderer = choose_renderer(mosaics(), space, NORMAL, size=(24, 32))
    assert renderer.golden(views)[:16] == golden


def test_neither_do_the_pixels_of_crops_at_another_size_or_with_more_done_to_them() -> None:
    square = np.stack([mosaics()[i].reshape(-1)[:768].reshape(16, 16, 3) for i in range(20)])
    enlarged = choose_renderer(square, ViewSpace.parse("crop3-flip", seed=4), NORMAL, size=(24, 24))
    assert enlarged.golden(4)[:16] == "4a4d7a9dfe79cc26"
    mixed = choose_renderer(square, ViewSpace.parse("crop3-zero-flip-color0.4-mixup0.8", seed=4), NORMAL)
    assert mixed.golden(4)[:16] == "f0e38d19061ea0dc"
