"""Folders of images as people have them: every image is found, or a note says what was left out."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from sources.tiny import Heard, encode, make_folder, random_images

from bancache.errors import DataError, UsageError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet


def opened(root: Path, split: str = "train") -> tuple[ImageSet, str]:
    """Return a split of a folder, and what was noted."""
    heard = Heard()
    return open_source(f"folder:{root}", split, progress=heard), "\n".join(heard.notes)


def picture(seed: int = 7) -> bytes:
    return encode(random_images(1, seed=seed)[0])


@pytest.mark.parametrize(
    "name", ["valid", "VAL", "validation", "Test", "testing", "Eval", "evaluation", "dev"]
)
def test_a_test_split_has_any_of_its_usual_names(tmp_path: Path, name: str) -> None:
    images, note = opened(make_folder(tmp_path, test=name), "test")
    assert len(images) == 3
    assert note == ("" if name == "Test" else f"folder:{tmp_path}: the test images are those of {name}")


def test_a_training_split_of_another_name_is_said(tmp_path: Path) -> None:
    (make_folder(tmp_path) / "train").rename(tmp_path / "training")
    assert opened(tmp_path)[1] == f"folder:{tmp_path}: the train images are those of training"


@pytest.mark.parametrize(
    ("there", "chosen"),
    [(("dev", "eval"), "eval"), (("testing", "test"), "test"), (("eval", "test"), "test")],
)
def test_of_several_splits_one_is_nearest_to_a_test_split(
    tmp_path: Path, there: tuple[str, str], chosen: str
) -> None:
    make_folder(tmp_path, test=there[0])
    shutil.copytree(tmp_path / there[0], tmp_path / there[1])
    assert opened(tmp_path, "test")[1].partition("are those of ")[2].split(";")[0] == chosen


@pytest.mark.parametrize("there", [("testing", "eval"), ("dev", "validation")])
def test_splits_of_which_each_could_be_the_test_split_are_refused(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    make_folder(tmp_path, test=there[0])
    shutil.copytree(tmp_path / there[0], tmp_path / there[1])
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert all(name in str(caught.value) for name in there)


def test_a_class_may_have_the_name_of_a_split_where_there_are_no_splits(tmp_path: Path) -> None:
    for name in ("dev", "cat"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.png").write_bytes(picture(i))
    assert opened(tmp_path)[0].classes == ("cat", "dev")


@pytest.mark.parametrize(
    "layout",
    [
        ("seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_test/dog"),
        ("training_set", "test_set"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("cat", "dog", "holdout/cat"),
    ],
)
def test_splits_are_never_taken_for_classes(tmp_path: Path, layout: tuple[str, ...]) -> None:
    for name in layout:
        (tmp_path / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / name / f"{i}.png").write_bytes(picture(i))
    with pytest.raises(DataError, match="which are splits, which are classes") as caught:
        opened(tmp_path)
    assert all(name.split("/")[0] in str(caught.value) for name in layout)


def test_images_beside_a_table_of_labels_are_not_one_class(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(5):
        (tmp_path / "images" / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "labels.csv").write_text("file,label\n0.png,cat\n")
    with pytest.raises(DataError, match=r"one class, images;.*labels\.csv"):
        opened(tmp_path)


def test_a_directory_between_the_split_and_the_classes_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_folder(tmp_path / "flat")
        (tmp_path / split).mkdir()
        (tmp_path / "flat" / split).rename(tmp_path / split / "images")
        shutil.rmtree(tmp_path / "flat")
    with pytest.raises(DataError, match=r"one class, images.* cat, dog"):
        opened(tmp_path)


def test_that_images_in_inner_directories_count_for_their_class_is_said(tmp_path: Path) -> None:
    for place in ("animals/cat", "animals/dog", "plants/rose"):
        (tmp_path / "train" / place).mkdir(parents=True)
        (tmp_path / "train" / place / "0.png").write_bytes(picture(len(place)))
    train, note = opened(tmp_path)
    assert train.classes == ("animals", "plants")
    assert "images in animals/cat are of class animals" in note


def test_inner_directories_are_said_where_every_fifth_image_is_a_test_image(tmp_path: Path) -> None:
    """A folder of images beside one of masks has the same classes in both."""
    for name in ("images", "masks"):
        for inner in ("cat", "dog"):
            (tmp_path / name / inner).mkdir(parents=True)
            for i in range(5):
                (tmp_path / name / inner / f"{i}.png").write_bytes(picture(i))
    images, note = opened(tmp_path)
    assert images.classes == ("images", "masks")
    assert "images in images/cat are of class images" in note


@pytest.mark.parametrize("path", ["~nobody-here/x", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(DataError):
        open_source(f"folder:{path}", "train")
    with pytest.raises(UsageError):
        open_source(path, "train")


def test_too_few_images_to_hold_one_out_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(picture(i))
    with pytest.raises(DataError, match="no class has 5 images"):
        opened(tmp_path)


def test_where_the_test_split_is_missing_a_share_can_be_held_out(tmp_path: Path) -> None:
    shutil.rmtree(make_folder(tmp_path) / "test")
    with pytest.raises(DataError) as caught:
        opened(tmp_path, "test")
    assert f"--data folder:{tmp_path}/train" in caught.value.hint


@pytest.mark.parametrize("other", ["Cat", "cat "])
def test_a_class_that_is_written_otherwise_in_test_is_shown_beside_the_other(
    tmp_path: Path, other: str
) -> None:
    make_folder(tmp_path)
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / other)
    with pytest.raises(DataError, match=f"'{other}'") as caught:
        opened(tmp_path)
    assert "'cat'" in caught.value.hint


def test_an_archive_among_classes_is_said(tmp_path: Path) -> None:
    (make_folder(tmp_path) / "train" / "emu.zip").write_bytes(b"x")
    assert "1 .zip" in opened(tmp_path)[1]


@pytest.mark.parametrize("source", ["folder:{}", "folder:{}/photos.zip"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, source: str) -> None:
    (tmp_path / "photos.zip").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_source(source.format(tmp_path), "train")
    assert f"unpack {tmp_path}/photos.zip" in caught.value.hint


def test_train_may_be_written_in_capitals(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train").rename(tmp_path / "Train")
    assert len(opened(tmp_path)[0]) == 5


def test_classes_without_splits_are_split_one_in_five_and_said(tmp_path: Path) -> None:
    for name, count in (("cat", 10), ("dog", 6)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(random_images(count, seed=count)):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(encode(image))
    (tmp_path / "photos" / "papers").mkdir()
    train, note = opened(tmp_path / "photos")
    test, _ = opened(tmp_path / "photos", "test")
    assert (train.labels.tolist().count(0), train.labels.tolist().count(1)) == (8, 5)
    assert test.labels.tolist() == [0, 0, 1]
    assert np.array_equal(test.images[0], random_images(10, seed=10)[4])
    assert "every fifth image" in note


def test_tiny_imagenet_as_it_is_unzipped(tmp_path: Path) -> None:
    for name in ("n01", "n02"):
        folder = tmp_path / "train" / name / "images"
        folder.mkdir(parents=True)
        (folder / f"{name}_0.JPEG").write_bytes(picture(len(name)))
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0 0 1 1")
    for split in ("val", "test"):
        (tmp_path / split / "images").mkdir(parents=True)
        for i in range(3):
            (tmp_path / split / "images" / f"{split}_{i}.JPEG").write_bytes(picture(i))
    rows = [f"val_{i}.JPEG\t{name}\t0\t0\t1\t1" for i, name in enumerate(["n02", "n01", "n02"])]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    train, test = opened(tmp_path)[0], opened(tmp_path, "test")[0]
    assert train.classes == test.classes == ("n01", "n02")
    assert sorted(test.labels.tolist()) == [0, 1, 1]


def test_rubbish_of_other_programs_is_no_image_and_is_counted(tmp_path: Path) -> None:
    make_folder(tmp_path)
    cat = tmp_path / "train" / "cat"
    (cat / "._0.jpg").write_bytes(b"\x00\x05\x16\x07")
    (cat / ".ipynb_checkpoints").mkdir()
    (cat / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(picture())
    (cat / "Thumbs.db").write_bytes(b"x")
    (cat / "folder.jpg").mkdir()
    train, note = opened(tmp_path)
    assert len(train) == 5
    assert "2 hidden" in note
    assert "1 .db" in note


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif"])
def test_images_with_rarer_suffixes_are_found(tmp_path: Path, suffix: str) -> None:
    make_folder(tmp_path)
    image = Image.fromarray(random_images(1)[0])
    image.save(tmp_path / "train" / "cat" / f"late{suffix}", "AVIF" if suffix == ".avif" else "JPEG")
    assert len(opened(tmp_path)[0]) == 6


def test_images_that_are_not_taken_are_said(tmp_path: Path) -> None:
    """Without a suffix, or behind a symbolic link to a folder."""
    make_folder(tmp_path / "data")
    cat = tmp_path / "data" / "train" / "cat"
    (cat / "noname").write_bytes(picture())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(picture())
    (cat / "more").symlink_to(tmp_path / "more")
    train, note = opened(tmp_path / "data")
    assert len(train) == 5
    assert "1 without suffix" in note
    assert "1 symbolic link" in note


def test_a_pipe_called_png_hangs_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path)
    os.mkfifo(tmp_path / "train" / "cat" / "x.png")
    train, note = opened(tmp_path)
    assert len(train) == 5
    assert "1 not a regular file" in note


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    """macOS writes é as two characters."""
    forms: tuple[tuple[str, Literal["NFC", "NFD"]], ...] = (("train", "NFC"), ("test", "NFD"))
    for split, form in forms:
        for name in ("café", "dog"):
            folder = tmp_path / split / unicodedata.normalize(form, name)
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(picture(len(split + name)))
    train, test = opened(tmp_path)[0], opened(tmp_path, "test")[0]
    assert test.classes == train.classes == ("café", "dog")
    assert test.labels.tolist() == [0, 1]


def test_a_class_without_test_images_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "bee").mkdir()
    (tmp_path / "train" / "bee" / "0.png").write_bytes(picture())
    test, note = opened(tmp_path, "test")
    assert test.classes == ("bee", "cat", "dog")
    assert sorted(set(test.labels.tolist())) == [1, 2]
    assert "1 of 3" in note
    assert "'bee'" in note


def test_test_labels_follow_the_training_classes_after_a_class_was_added(tmp_path: Path) -> None:
    """The pixels of the test split were kept when there were two classes."""
    make_folder(tmp_path)
    before = opened(tmp_path, "test")[0]
    (tmp_path / "train" / "bee").mkdir()
    (tmp_path / "train" / "bee" / "0.png").write_bytes(picture())
    after = opened(tmp_path, "test")[0]
    assert after.labels.tolist() == [label + 1 for label in before.labels]
    assert after.fingerprint != before.fingerprint


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "test" / "emu").mkdir()
    with pytest.raises(DataError, match="'emu'"):
        opened(tmp_path)


def test_a_folder_without_anything_known_is_listed(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"images\.zip"):
        opened(tmp_path)


def test_images_and_directories_beside_the_classes_are_said(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "loose.png").write_bytes(picture())
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "readme.txt").write_text("x")
    train, note = opened(tmp_path)
    assert len(train) == 5
    assert "left out 2 (1 hidden, 1 outside the directories of classes)" in note


def test_of_two_splits_whose_names_differ_in_capitals_the_other_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path)
    make_folder(tmp_path / "other")
    (tmp_path / "other" / "test").rename(tmp_path / "Train")
    train, note = opened(tmp_path)
    assert len(train) == 3
    assert "left out train" in note


def test_a_class_without_images_says_what_was_left_out(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "train" / "emu" / "0.svg").write_text("<svg/>")
    with pytest.raises(DataError, match=r"emu has no images.*1 \.svg"):
        opened(tmp_path)


@pytest.mark.parametrize("inside", ["images/train", "images"])
def test_a_folder_around_the_folder_that_was_meant_names_it(tmp_path: Path, inside: str) -> None:
    make_folder(tmp_path / inside)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert f"folder:{tmp_path}/images" in caught.value.hint


@pytest.mark.parametrize("target", ["nowhere.png", "0.png"])
def test_links_to_nothing_are_listed_with_all_pictures_that_cannot_be_read(
    tmp_path: Path, target: str
) -> None:
    """Files that git-annex or DVC has not fetched are such links; a link may also lead to itself."""
    make_folder(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "cat" / "0.png").unlink()
        (tmp_path / split / "cat" / "0.png").symlink_to(target)
    (tmp_path / "test" / "cat" / "1.png").write_bytes(picture())
    with pytest.raises(DataError, match=r"2 of 9 pictures cannot be read") as caught:
        opened(tmp_path)
    assert "--skip-bad" in caught.value.hint
    assert len(open_source(f"folder:{tmp_path}", "train", skip_bad=True)) == 4


def test_what_an_archive_of_macos_leaves_is_no_class(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    classes = opened(root)[0].classes
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "1.png").write_bytes(picture())
    images, note = opened(root)
    assert images.classes == classes
    assert "1 hidden" in note
