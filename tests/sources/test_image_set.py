"""ImageSet refuses what makes no sense, and its fingerprint counts everything that matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sources.tiny import random_images

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet, Statistics, channel_statistics, numbered_classes


def image_set(**changes: Any) -> ImageSet:
    values: dict[str, Any] = {
        "images": random_images(4),
        "labels": np.array([0, 1, 2, 1]),
        "classes": ("ant", "bee", "cow"),
        "name": "test",
        "split": "train",
    }
    return ImageSet(**{**values, **changes})


def test_fingerprint_is_frozen() -> None:
    """If this changes, every cache and checkpoint refuses the data it was made with."""
    images = image_set(images=np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3))
    assert images.fingerprint == "9897793c3231ab69827e7be05fb46c2053563e860bb60341a349980315213b5a"


def test_fingerprint_counts_everything() -> None:
    """One pixel, the order, a label, a class name, the shape: each makes another data set."""
    base = random_images(4)
    one_pixel = base.copy()
    one_pixel[3, 4, 4, 2] ^= 1
    order = np.array([1, 0, 2, 3])
    variants = [
        image_set(),
        image_set(images=one_pixel),
        image_set(images=base[order], labels=np.array([0, 1, 2, 1])[order]),
        image_set(labels=np.array([0, 1, 2, 2])),
        image_set(classes=("ant", "bee", "cat")),
        image_set(classes=("ant", "bee", "cow", "dog")),
        image_set(classes=("ant", 'bee", "cow', "cow")),
        image_set(images=base.reshape(4, 25, 1, 3)),
    ]
    assert len({images.fingerprint for images in variants}) == len(variants)


def test_fingerprint_ignores_where_it_came_from() -> None:
    """The same content is the same data set under another name, in another split, in another memory order."""
    fortran = np.asfortranarray(random_images(4))
    same = image_set(images=fortran, name="other", split="test")
    assert same.fingerprint == image_set().fingerprint
    assert same.images.flags.c_contiguous


def test_the_callers_arrays_stay_writable() -> None:
    """The set is read-only, what it was made of is not touched."""
    images = random_images(4)
    made = image_set(images=images)
    assert images.flags.writeable
    assert not made.images.flags.writeable
    assert np.shares_memory(made.images, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 5, 5, 3), np.float32)}, "test.*float32.*uint8"),
        ({"images": np.zeros((4, 5, 5), np.uint8)}, r"test.*\(4, 5, 5\)"),
        ({"images": np.zeros((4, 3, 5, 5), np.uint8)}, r"test.*\(4, 3, 5, 5\)"),
        ({"images": np.zeros((0, 5, 5, 3), np.uint8)}, r"test.*\(0, 5, 5, 3\)"),
        ({"labels": np.zeros(4, np.int32)}, "test.*int32.*int64"),
        ({"labels": np.zeros(3, np.int64)}, r"test.*4.*\(3,\)"),
        ({"labels": np.array([0, 1, 3, 0])}, r"test.*3.*2.*0\.\.2.*3"),
        ({"labels": np.array([-1, 1, 3, 0])}, r"test.*-1.*0.*0\.\.2"),
        ({"classes": ()}, r"0\.\.-1.*0"),
        ({"classes": ("ant", "bee", "ant")}, "test.*0.*2.*'ant'"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    """Every check names both sides of the disagreement and says what to do."""
    with pytest.raises(DataError, match=message) as caught:
        image_set(**changes)
    assert caught.value.hint


def test_first() -> None:
    """The first n keep the class names; more than there are is all of them."""
    images = image_set()
    assert len(images.first(2)) == 2
    assert images.first(2).classes == ("ant", "bee", "cow")
    assert images.first(100) is images


def test_statistics_are_exact() -> None:
    """Known pixels give known numbers, per channel; a constant channel has std 1."""
    images = np.zeros((2, 1, 2, 3), np.uint8)
    images[..., 1] = 7
    images[..., 2] = [[[0, 10]], [[20, 30]]]
    assert channel_statistics(images) == Statistics((0.0, 7.0, 15.0), (1.0, 1.0, 125**0.5))


def test_statistics_agree_with_numpy_across_blocks() -> None:
    """Several blocks of the largest values neither overflow nor lose a bit that matters."""
    images = random_images(3, height=1500, width=1500) | np.uint8(0xF0)  # 6.75 MB an image, 2 in a block
    found = channel_statistics(images)
    assert found.mean == pytest.approx(images.mean(axis=(0, 1, 2)), rel=1e-12)
    assert found.std == pytest.approx(images.std(axis=(0, 1, 2)), rel=1e-9)


def test_numbered_classes() -> None:
    """Numbers name the classes up to the largest label; a label that is a hash is no class."""
    assert numbered_classes(np.array([2, 0]), "toy") == ("0", "1", "2")
    assert numbered_classes(np.array([], np.int64), "toy") == ()
    with pytest.raises(DataError, match=r"toy.*1099511627776"):
        numbered_classes(np.array([1 << 40]), "toy")


def test_one_hot_labels_are_told_how_to_be_numbers() -> None:
    with pytest.raises(DataError, match=r"\(4, 3\)") as caught:
        image_set(labels=np.eye(3, dtype=np.int64)[[0, 1, 2, 1]])
    assert "argmax" in caught.value.hint
