"""Random boxes: always inside the picture, and distributed as those of torchvision and timm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, ks_2samp  # type: ignore[import-untyped]
from torchvision.transforms import RandomErasing, RandomResizedCrop

from bancache.views import ViewSpace
from bancache.views.record import HEIGHT, TOP, WHOLE, WIDTH
from bancache.views.space import Sizes

SIZES = [
    (1, 1),
    (1, 2000),
    (2000, 1),
    (2, 3),
    (32, 32),
    (375, 500),
    (2400, 1800),
    (1, 65_500),
    (65_500, 65_500),
]
NAMES = ["rrc-flip", "rrc1", "rrc0.25x1.5", "rrc0.0001x16", "rrcx1"]
ENOUGH = 0.001  # the probability that two equal distributions look as different


def boxes(name: str, height: int, width: int, count: int) -> NDArray[np.int64]:
    """Return top, left, height and width of the views of one picture, int64 (4, count)."""
    space = ViewSpace.parse(name, seed=1)
    sizes = Sizes(np.array([height]), np.array([width]))
    records = space.records(np.zeros(count, np.int64), np.arange(count), sizes)
    return records[:, TOP : WIDTH + 1].T.astype(np.int64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_are_inside_the_picture(name: str, height: int, width: int) -> None:
    top, left, h, w = boxes(name, height, width, 2000)
    assert min(top.min(), left.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height
    assert (left + w).max() <= width


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (2400, 1800), (64, 64), (100, 260)])
@pytest.mark.parametrize(("name", "area", "aspect"), [("rrc", 0.08, 4 / 3), ("rrc0.3x2", 0.3, 2.0)])
def test_boxes_are_distributed_as_torchvisions(
    name: str, area: float, aspect: float, height: int, width: int
) -> None:
    """Each edge, the area and the aspect; where no box fits in ten tries, the centered one is taken as often."""
    ours, count = boxes(name, height, width, 20_000), 3000
    torch.manual_seed(0)
    picture = torch.empty((1, height, width))
    theirs = np.array(
        [RandomResizedCrop.get_params(picture, [area, 1.0], [1 / aspect, aspect]) for _ in range(count)]
    ).T
    for one, other in (
        *zip(ours, theirs, strict=True),
        (ours[2] * ours[3], theirs[2] * theirs[3]),
        (ours[3] / ours[2], theirs[3] / theirs[2]),
    ):
        assert ks_2samp(one, other).pvalue > ENOUGH


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 2000, (0, 999, 1, 1)),
        (2000, 1, (999, 0, 1, 1)),
        (90, 1000, (0, 440, 90, 120)),
        (1000, 90, (440, 0, 120, 90)),
    ],
)
def test_where_nothing_fits_the_box_is_the_largest_in_the_middle(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    """As torchvision's: within the aspects, at the middle, rounded down."""
    torch.manual_seed(0)
    picture = torch.empty((1, height, width))
    theirs = {tuple(RandomResizedCrop.get_params(picture, [0.9, 1.0], [3 / 4, 4 / 3])) for _ in range(20)}
    assert theirs == {box}
    assert set(map(tuple, boxes("rrc0.9", height, width, 20).T.tolist())) == {box}


def test_a_whole_picture_of_aspect_one_is_the_picture() -> None:
    assert set(map(tuple, boxes("rrc1x1", 333, 333, 100).T.tolist())) == {(0, 0, 333, 333)}


def test_places_are_uniform() -> None:
    top, left, h, w = boxes("rrc0.25x1", 16, 16, 40_000)
    for start, side in ((top, h), (left, w)):
        counts = np.bincount(start[side == 8], minlength=9)
        assert len(counts) == 9
        assert chisquare(counts).pvalue > ENOUGH


def test_erased_boxes_are_distributed_as_timms() -> None:
    """torchvision draws them in the same way, with other bounds by default."""
    space, count, side = ViewSpace.parse("rrc-erase1", seed=2), 20_000, 2048
    records = space.records(np.zeros(count, np.int64), np.arange(count), Sizes(np.array([9]), np.array([9])))
    ours = records[:, space.layout.erased].T / WHOLE
    torch.manual_seed(0)
    picture = torch.empty((1, side, side), device="meta")
    theirs = (
        np.array(
            [RandomErasing.get_params(picture, (0.02, 1 / 3), (0.3, 1 / 0.3), [0.0])[:4] for _ in range(3000)]
        ).T
        / side
    )
    for one, other in (
        *zip(ours, theirs, strict=True),
        (ours[2] * ours[3], theirs[2] * theirs[3]),
        (ours[3] / ours[2], theirs[3] / theirs[2]),
    ):
        assert ks_2samp(one, other).pvalue > ENOUGH
    assert (ours[3] / ours[2]).min() == pytest.approx(0.3, abs=0.01)
    assert (ours[3] / ours[2]).max() == pytest.approx(1 / 0.3, abs=0.01)
    assert (ours[2] * ours[3]).min() >= 0.02 - 1e-4
    assert (ours[2] * ours[3]).max() <= 1 / 3 + 1e-4


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_view_for_evaluation_is_in_the_middle(height: int, width: int) -> None:
    """7/8 of the shorter side, at least a pixel."""
    space = ViewSpace.parse("rrc-flip").evaluation
    (record,) = space.records(
        np.zeros(1, np.int64), np.zeros(1, np.int64), Sizes(np.array([height]), np.array([width]))
    )
    top, left, h, w = record[TOP : WIDTH + 1].tolist()
    assert h == w == max(1, math.floor(7 * min(height, width) / 8 + 0.5))
    assert (top, left) == ((height - h) // 2, (width - w) // 2)
    assert record[HEIGHT] == h
    assert space.name == "center"
