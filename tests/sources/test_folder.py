"""ImageFolder trees: order, classes, names of what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sources.tiny import encode, make_folder, random_images

from bancache.errors import DataError
from bancache.sources import open_source


def test_order_and_classes(tmp_path: Path) -> None:
    """Classes by name, files by name within them, subdirectories too; other files are no images."""
    make_folder(tmp_path)
    extra = random_images(1, seed=99)
    (tmp_path / "train" / "cat" / "sub").mkdir()
    (tmp_path / "train" / "cat" / "sub" / "late.PNG").write_bytes(encode(extra[0]))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    train = open_source(f"folder:{tmp_path}", "train")
    cat, dog = random_images(3, seed=len("traincat")), random_images(2, seed=len("traindog"))
    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert np.array_equal(train.images, np.concatenate([cat, extra, dog]))


@pytest.mark.parametrize("name", ["val", "validation"])
def test_validation_stands_in_for_test(tmp_path: Path, name: str) -> None:
    """A tree with val/ or validation/ has a test split."""
    assert len(open_source(f"folder:{make_folder(tmp_path, test=name)}", "test")) == 3


def test_gray_only_if_all_are(tmp_path: Path) -> None:
    """Gray images have one channel; one in color, even the last, gives all of them three."""
    make_folder(tmp_path, channels=1)
    gray = open_source(f"folder:{tmp_path}", "train")
    assert gray.channels == 1
    last = random_images(1, seed=5)[0]
    (tmp_path / "train" / "dog" / "9.png").write_bytes(encode(last))
    color = open_source(f"folder:{tmp_path}", "train")
    assert color.channels == 3
    assert np.array_equal(color.images[:-1], np.repeat(gray.images, 3, axis=3))
    assert np.array_equal(color.images[-1], last)


def test_sizes_that_differ(tmp_path: Path) -> None:
    """Each picture keeps its own size, unless one is given."""
    make_folder(tmp_path)
    last = random_images(1, height=7, width=9)[0]
    (tmp_path / "train" / "dog" / "9.png").write_bytes(encode(last))
    found = open_source(f"folder:{tmp_path}", "train")
    assert [image.shape for image in found.images] == [(5, 5, 3)] * 5 + [(7, 9, 3)]
    assert np.array_equal(found.images[5], last)
    assert open_source(f"folder:{tmp_path}", "train", image_size=4).images.shape == (6, 4, 4, 3)


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """A cut image, an empty file and a text named .png: the message has the path."""
    make_folder(tmp_path)
    file = tmp_path / "train" / "dog" / "1.png"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"dog/1\.png") as caught:
            open_source(f"folder:{tmp_path}", "train")
        assert "--skip-bad" in caught.value.hint
    file.unlink()
    file.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"dog/1\.png"):
        open_source(f"folder:{tmp_path}", "train")


def test_layout_errors(tmp_path: Path) -> None:
    """Missing tree, missing split, empty class, classes that disagree: one line each, with a hint."""
    tree = make_folder(tmp_path / "tree")
    (tree / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="train/emu"):
        open_source(f"folder:{tree}", "train")
    (tree / "train" / "emu").rmdir()
    (tree / "test" / "emu").mkdir()
    with pytest.raises(DataError, match=r"'emu'.*test.*train.*2.*3"):
        open_source(f"folder:{tree}", "test")
    shutil.rmtree(tree / "test")
    with pytest.raises(DataError, match=r"test.*val.*validation"):
        open_source(f"folder:{tree}", "test")
    (tree / "test").mkdir()
    with pytest.raises(DataError, match="test"):
        open_source(f"folder:{tree}", "train")
    with pytest.raises(DataError, match="/none"):
        open_source(f"folder:{tmp_path / 'none'}", "train")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="/file"):
        open_source(f"folder:{tmp_path / 'file'}", "train")
