"""Classes that no training image has are said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources.tiny import Heard, make_folder, make_npz

from bancache.sources.spec import DataSpec


@pytest.mark.parametrize(("labels", "said"), [([1, 2, 3, 4, 1], "1 of 5"), ([0, 1, 0, 1, 500], "498 of 501")])
def test_gaps_among_labels_are_said(tmp_path: Path, labels: list[int], said: str) -> None:
    heard = Heard()
    file = make_npz(
        tmp_path / "d.npz", train_labels=np.array(labels), test_labels=np.array([1, 1, 1]), classes=None
    )
    DataSpec(f"npz:{file}").open("train", progress=heard)
    assert any(said in note for note in heard.notes)


def test_a_limit_that_leaves_classes_without_images_is_said(tmp_path: Path) -> None:
    """The files of a folder are sorted by class, so the first of them are of one class."""
    heard = Heard()
    DataSpec(f"folder:{make_folder(tmp_path)}", limit=3).open("train", progress=heard)
    assert any("1 of 2" in note and "'dog'" in note for note in heard.notes)


def test_nothing_is_said_where_every_class_has_images(tmp_path: Path) -> None:
    heard = Heard()
    DataSpec(f"npz:{make_npz(tmp_path / 'd.npz')}").open("train", progress=heard)
    assert heard.notes == []
