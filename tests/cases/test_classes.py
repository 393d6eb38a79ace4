"""Classes that no training image has, and names of classes that are hardly right, are said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.tiny import Heard, make_folder, make_npz

from bancache.sources.request import DECODER
from bancache.sources.spec import DataSpec


@pytest.mark.parametrize(("labels", "said"), [([1, 2, 3, 4, 1], "1 of 5"), ([0, 1, 0, 1, 500], "498 of 501")])
def test_gaps_among_labels_are_said(tmp_path: Path, labels: list[int], said: str) -> None:
    heard = Heard()
    file = make_npz(
        tmp_path / "d.npz", train_labels=np.array(labels), test_labels=np.array([1, 1, 1]), classes=None
    )
    DataSpec(f"npz:{file}").open("train", progress=heard)
    assert any(said in note for note in heard.notes)


def test_a_limit_takes_equally_many_of_each_class(tmp_path: Path) -> None:
    """The files of a folder are sorted by class, so the first of them are of one class."""
    heard, whole = Heard(), DataSpec(source := f"folder:{make_folder(tmp_path)}").open("train")
    limited = DataSpec(source, limit=3).open("train", progress=heard)
    assert np.bincount(limited.labels).tolist() == [2, 1]
    assert whole.paths is not None
    assert limited.paths == tuple(whole.paths[sample] for sample in (0, 1, 3))
    assert (limited.images[2] == whole.images[3]).all()
    assert any("the first 1 to 2 of each of 2 classes" in note for note in heard.notes)


def test_a_limit_below_the_number_of_classes_says_which_are_missing(tmp_path: Path) -> None:
    heard = Heard()
    DataSpec(f"folder:{make_folder(tmp_path)}", limit=1).open("train", progress=heard)
    assert any("1 of 2" in note and "'dog'" in note for note in heard.notes)


def test_a_run_that_an_older_version_began_keeps_its_first_images(tmp_path: Path) -> None:
    source = f"folder:{make_folder(tmp_path)}"
    old = {"source": source, "limit": 3, "image_size": None}
    spec = DataSpec.from_dict(old)
    assert spec.open("train").labels.tolist() == [0, 0, 0]
    assert DataSpec(source, limit=3).as_begun(old) == replace(spec, decoder=DECODER)
    assert DataSpec.from_dict(DataSpec(source, limit=3).to_dict()) == DataSpec(source, limit=3)


def test_nothing_is_said_where_every_class_has_images(tmp_path: Path) -> None:
    heard = Heard()
    DataSpec(f"npz:{make_npz(tmp_path / 'd.npz')}").open("train", progress=heard)
    assert heard.notes == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cat", "Cat", "dog"], "'cat' and 'Cat'"),
        (["New York", "dog", " new  york"], "'New York' and ' new  york'"),
        (["", "cat", "dog"], "no name"),
    ],
)
def test_names_of_classes_that_are_hardly_right_are_warned_of(
    tmp_path: Path, names: list[str], said: str
) -> None:
    heard = Heard()
    DataSpec(f"npz:{make_npz(tmp_path / 'd.npz', classes=np.array(names))}").open("train", progress=heard)
    assert len(heard.warnings) == 1
    assert said in heard.warnings[0]


def test_a_single_class_is_warned_of(tmp_path: Path) -> None:
    heard, root = Heard(), make_folder(tmp_path)
    for split in ("train", "test"):
        shutil.rmtree(root / split / "dog")
    DataSpec(f"folder:{root}").open("train", progress=heard)
    assert "one class, 'cat'" in heard.warnings[0]
