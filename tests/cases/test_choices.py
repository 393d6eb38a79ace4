"""What a source decides among several possibilities is said in a line, and nothing where there was no choice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.calling import call
from PIL import Image
from sources.tiny import Heard, encode, make_folder, make_npz, make_parquet, make_shard, random_images

from bancache.errors import DataError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet
from bancache_cli.inputs import like_teacher


def opened(source: str, split: str = "train") -> tuple[ImageSet, str]:
    """Return a split, and what was noted or warned of."""
    heard = Heard()
    return open_source(source, split, progress=heard), "\n".join(heard.notes + heard.warnings)


def test_nothing_is_said_of_plain_data(tmp_path: Path) -> None:
    for source in (
        "digits",
        f"npz:{make_npz(tmp_path / 'd.npz')}",
        f"folder:{make_folder(tmp_path / 'f')}",
        f"parquet:{make_parquet(tmp_path / 'p')}",
    ):
        for split in ("train", "test"):
            assert opened(source, split)[1] == ""


def test_the_label_column_is_said_if_there_are_others(tmp_path: Path) -> None:
    root = make_parquet(tmp_path)
    make_shard(
        root / "train-00000-of-00002.parquet",
        random_images(3),
        [0, 1, 2],
        names=["ant", "bee", "cow"],
        extra={"label": [1, 1, 1], "mask": [b"", b"", b""]},
    )
    lines = opened(f"parquet:{root}")[1].splitlines()
    assert sorted(line.partition(": the ")[2] for line in lines) == [
        "images are those of column img; left out mask",
        "labels are those of column fine_label; left out label",
    ]


def test_a_coarser_label_beside_the_label_is_said(tmp_path: Path) -> None:
    root = make_parquet(tmp_path, names=None)
    coarse = {"coarse_label": [0, 0, 1], "id": [7, 8, 9]}
    make_shard(root / "train-00000-of-00002.parquet", random_images(3), [0, 1, 2], extra=coarse)
    note = opened(f"parquet:{root}")[1]
    assert note.endswith("the labels are those of column fine_label; left out coarse_label")


def test_the_split_that_stands_in_for_test_is_said(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", test="val")
    assert "val" in opened(f"folder:{folder}", "test")[1]
    parquet = make_parquet(tmp_path / "p")
    (parquet / "test-00000-of-00001.parquet").rename(parquet / "validation-00000-of-00001.parquet")
    assert "validation-00000" in opened(f"parquet:{parquet}", "test")[1]


def test_a_split_beside_the_test_split_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    (folder / "test").rename(folder / "val")
    (folder / "test" / "cat").mkdir(parents=True)
    (folder / "test" / "cat" / "0.png").write_bytes(encode(random_images(1)[0]))
    images, note = opened(f"folder:{folder}", "test")
    assert len(images) == 1
    assert note.splitlines()[0].endswith("left out val")


def test_arrays_of_other_names_are_left_out_and_said(tmp_path: Path) -> None:
    file = make_npz(tmp_path / "d.npz", val_images=random_images(2), val_labels=np.array([0, 1]))
    assert "left out val_images, val_labels" in opened(f"npz:{file}")[1]


def test_numbers_that_name_classes_are_sorted_as_text_and_that_is_said(tmp_path: Path) -> None:
    for name in range(12):
        (tmp_path / "train" / str(name)).mkdir(parents=True)
        (tmp_path / "train" / str(name) / "0.png").write_bytes(encode(random_images(1)[0]))
    images, note = opened(f"folder:{tmp_path}")
    assert images.classes[:3] == ("0", "1", "10")
    assert "class 2 is '10'" in note


@pytest.mark.parametrize(("largest", "white"), [(200, 255), (4000, 4095), (65535, 65535)])
def test_arrays_of_16_bits_are_scaled_from_the_range_of_both_splits(
    tmp_path: Path, largest: int, white: int
) -> None:
    train = np.full((5, 2, 2), 100, np.uint16)
    arrays: dict[str, Any] = {"train_images": train, "test_images": np.full((3, 2, 2), largest, np.uint16)}
    images, note = opened(f"npz:{make_npz(tmp_path / 'd.npz', **arrays)}")
    assert images.images.max() == round(100 * 255 / white)
    assert f"{white:,}" in note


@pytest.mark.parametrize("largest", [1, 0])
def test_pixels_that_are_nearly_black_are_warned_of(tmp_path: Path, largest: int) -> None:
    """As after a division by 255 or more, and a conversion to integers."""
    heard = Heard()
    file = make_npz(tmp_path / "d.npz", train_images=random_images(5) // 255 * largest)
    open_source(f"npz:{file}", "train", progress=heard)
    assert f"{largest} of 255" in heard.warnings[0]


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "palette"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_that_are_nearly_black_are_warned_of(tmp_path: Path, kind: str, split: str) -> None:
    """As after a division by 255 before they were written."""
    make_folder(tmp_path)
    for number, file in enumerate(sorted((tmp_path / split).rglob("*.png"))):
        dark = random_images(1, seed=number)[0, :, :, 0] // 128
        picture = Image.fromarray(dark.astype(np.uint16) if kind == "16 bits" else dark)
        if kind == "palette":
            picture.putpalette([0, 0, 0, 1, 1, 1])
        picture.save(file)
    for _ in range(2):  # decoded, and kept
        for opened_split in ("train", "test"):
            heard = Heard()
            open_source(f"folder:{tmp_path}", opened_split, progress=heard)
            assert len(heard.warnings) == (opened_split == split)


def test_values_of_16_bits_that_are_nearly_black_are_warned_of(tmp_path: Path) -> None:
    heard = Heard()
    file = make_npz(tmp_path / "d.npz", train_images=(random_images(5) // 255).astype(np.uint16))
    open_source(f"npz:{file}", "train", progress=heard)
    assert "1 of 255" in heard.warnings[0]


def test_few_strokes_on_black_are_not_nearly_black(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for file in tmp_path.rglob("*.png"):
        strokes = np.zeros((28, 28), np.uint8)
        strokes[3, 4:8] = 200
        Image.fromarray(strokes).save(file)
    heard = Heard()
    open_source(f"folder:{tmp_path}", "train", progress=heard)
    assert heard.warnings == []


def test_true_and_false_in_an_array_are_two_classes(tmp_path: Path) -> None:
    labels = {"train_labels": np.array([True, False, True, True, False]), "test_labels": np.array([True] * 3)}
    images, _ = opened(f"npz:{make_npz(tmp_path / 'd.npz', classes=None, **labels)}")
    assert (images.classes, images.labels.tolist()) == (("0", "1"), [1, 0, 1, 1, 0])


def test_a_missing_test_split_is_found_before_the_training_images_are_decoded(tmp_path: Path) -> None:
    shutil.rmtree(make_folder(tmp_path) / "test")
    outcome = call("train-teacher", "--data", f"folder:{tmp_path}", "--model", "convnet-16", "--epochs", "1")
    assert outcome.code == 1
    assert "decode" not in outcome.err


def test_annotations_and_images_that_do_not_match_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.png").write_bytes(encode(random_images(1)[0]))
    (tmp_path / "val" / "images").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (tmp_path / "val" / "images" / name).write_bytes(encode(random_images(1)[0]))
    rows = ["0.png\ta\t0", "7.png\ta\t0", "../../train/a/0.png\ta", "torn"]
    (tmp_path / "val" / "val_annotations.txt").write_bytes("\n".join(rows).encode() + b"\n\xff")
    images, note = opened(f"folder:{tmp_path}", "test")
    assert len(images) == 1
    assert "2 in val_annotations.txt alone" in note
    assert "1 not in val_annotations.txt" in note


def test_a_split_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "val_annotations.txt").write_text("")
    with pytest.raises(DataError):
        opened(f"folder:{tmp_path}", "test")


def test_a_student_has_the_size_of_its_cache_unless_an_older_version_began_it_at_the_teachers() -> None:
    own = {"name": "wrn-10-1", "image_size": [32, 32]}
    resized = {**own, "image_size": [48, 48]}
    assert like_teacher(own, (48, 48), None) == resized
    assert like_teacher(own, None, None) == own
    assert like_teacher(own, (48, 48), own) == own
    assert like_teacher(own, (48, 48), resized) == resized
