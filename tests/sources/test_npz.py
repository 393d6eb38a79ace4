"""Arrays in an .npz: what is accepted, and what is refused without executing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources.tiny import make_npz, random_images

from bancache.errors import DataError
from bancache.sources import open_source


def test_gray_without_channel_and_labels_in_a_column(tmp_path: Path) -> None:
    """(N, H, W) is gray, (N, 1) labels are labels, and classes without names are numbers of both splits."""
    gray = random_images(5, channels=1)
    file = make_npz(
        tmp_path / "grey.npz",
        train_images=gray[..., 0],
        train_labels=np.array([[0], [1], [0], [1], [0]], np.uint8),
        classes=None,
    )
    opened = open_source(f"npz:{file}", "train")
    assert np.array_equal(opened.images, gray)
    assert opened.labels.tolist() == [0, 1, 0, 1, 0]
    assert opened.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "'train_images'"),
        ({"train_labels": None}, "'train_labels'"),
        ({"train_images": np.zeros((5, 4, 4, 3), np.float32)}, "float32.*uint8"),
        ({"train_images": random_images(4)}, r"4.*\(5,\)"),
        ({"train_labels": np.zeros(5)}, "train_labels.*float64"),
        ({"classes": np.array([1, 2, 3])}, r"classes.*int64.*\(3,\)"),
        ({"classes": np.array(["ant", "bee"])}, r"2.*2.*0\.\.1"),
        ({"train_labels": np.array([{}] * 5, object)}, "pickle"),
        ({"classes": np.array(["a", "b", "c"], object)}, "pickle"),
    ],
)
def test_refuses(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Wrong arrays are named; arrays that need pickle are not loaded."""
    file = make_npz(tmp_path / "wrong.npz", **changes)
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"npz:{file}", "train")
    assert caught.value.hint


def test_damaged_files(tmp_path: Path) -> None:
    """A cut, empty, altered or foreign file, a directory and no file at all: one line each."""
    whole = make_npz(tmp_path / "whole.npz").read_bytes()
    altered = bytearray(whole)
    altered[200] ^= 1
    contents = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "altered": bytes(altered),
        "foreign": b"hello" * 9,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"npz:.*{name}"):
            open_source(f"npz:{tmp_path / name}", "train")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="npz:"):
        open_source(f"npz:{tmp_path / 'one.npy'}", "train")
    with pytest.raises(DataError, match="npz:"):
        open_source(f"npz:{tmp_path}", "train")
    with pytest.raises(DataError, match="npz:"):
        open_source(f"npz:{tmp_path / 'none'}", "train")
