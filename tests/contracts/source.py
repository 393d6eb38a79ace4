"""What every data source promises; each source's tests call these with its own instance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bancache.errors import UsageError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet, channel_statistics, fingerprint_images
from bancache.sources.spec import DataSpec


def check_arrays(spec: DataSpec) -> None:
    """Both splits are read-only C-contiguous uint8 and int64 arrays with labels among the same classes."""
    train, test = spec.open("train"), spec.open("test")
    assert train.classes == test.classes
    assert (train.channels, train.height, train.width) == (test.channels, test.height, test.width)
    for images, split in ((train, "train"), (test, "test")):
        assert (images.name, images.split) == (spec.source, split)
        assert images.images.dtype == np.uint8
        assert images.images.shape == (len(images), images.height, images.width, images.channels)
        assert images.images.flags.c_contiguous
        assert images.labels.dtype == np.int64
        assert images.labels.shape == (len(images),)
        assert set(images.labels.tolist()) <= set(range(len(images.classes)))
        for array in (images.images, images.labels):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def check_opening_again(spec: DataSpec) -> None:
    """A second opening gives the same bits, and what was recorded is what the pixels say."""
    first, second = spec.open("train"), spec.open("train")
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert first.classes == second.classes
    assert first.fingerprint == second.fingerprint
    for images in (first, second):
        assert images.fingerprint == fingerprint_images(images.images, images.labels, images.classes)
        assert images.statistics == channel_statistics(images.images)


def check_splits_differ(spec: DataSpec) -> None:
    """No split can be taken for the other, and no third one exists."""
    assert spec.open("train").fingerprint != spec.open("test").fingerprint
    with pytest.raises(UsageError, match="unknown split 'valid'"):
        spec.open("valid")


def check_limit(spec: DataSpec) -> None:
    """A limit takes the first training image of each class, then the second ones, and leaves the test split whole."""
    whole, limited = spec.open("train"), DataSpec(spec.source, limit=3).open("train")
    places = [(list(whole.labels[:index]).count(label), index) for index, label in enumerate(whole.labels)]
    chosen = sorted(index for _, index in sorted(places)[:3])
    assert len(limited) == 3
    assert np.array_equal(limited.images, whole.images[chosen])
    assert np.array_equal(limited.labels, whole.labels[chosen])
    assert limited.classes == whole.classes
    assert limited.fingerprint != whole.fingerprint
    assert limited.statistics == channel_statistics(whole.images[chosen])
    test = DataSpec(spec.source, limit=1).open("test")
    assert test.fingerprint == spec.open("test").fingerprint


def check_image_size(spec: DataSpec) -> None:
    """An image size makes every image a square of that size, and another data set."""
    resized = DataSpec(spec.source, image_size=6).open("train")
    assert resized.images.shape[1:3] == (6, 6)
    assert np.array_equal(resized.labels, spec.open("train").labels)
    assert resized.fingerprint != spec.open("train").fingerprint


def check_travel(spec: DataSpec, leave: Callable[[], None]) -> None:
    """A resolved spec that went through a checkpoint opens the same data from another directory."""
    here = spec.open("test").fingerprint
    packed = spec.resolved().to_dict()
    leave()
    assert DataSpec.from_dict(packed).open("test").fingerprint == here


def check_no_network(spec: DataSpec) -> None:
    """Asking for a download where everything is there changes nothing."""
    opened: ImageSet = open_source(spec.source, "test", download=True)
    assert opened.fingerprint == spec.open("test").fingerprint
