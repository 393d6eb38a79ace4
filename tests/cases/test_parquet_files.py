"""Parquet and Arrow files as the Hub and the datasets library write them: the label is a label, or is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sources.tiny import Heard, encode, random_images

from bancache.errors import DataError
from bancache.sources import open_source


def table(
    labels: list[Any], *, column: str = "label", names: list[str] | None = None, **extra: Any
) -> pa.Table:
    """A table of as many images as labels."""
    cells = [{"bytes": encode(image), "path": None} for image in random_images(len(labels))]
    made = pa.table({"image": cells, column: labels, **extra})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(made: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(made, file)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001.parquet", "valid-00000-of-00001.parquet"),
        ("train.parquet", "test.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train/a.parquet", "val/a.parquet"),
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("training/a.parquet", "testing/a.parquet"),
        ("train.parquet", "eval.parquet"),
        ("train.parquet", "dev.parquet"),
    ],
    ids=" ".join,
)
def test_the_usual_layouts_are_found(tmp_path: Path, names: tuple[str, str]) -> None:
    write(table([0, 1, 1]), tmp_path / names[0])
    write(table([1, 0]), tmp_path / names[1])
    train, test = (open_source(f"parquet:{tmp_path}", split) for split in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1], [1, 0])
    assert np.array_equal(train.images, random_images(3))


def test_a_folder_of_a_configuration_is_named(tmp_path: Path) -> None:
    for name in ("plain_text/train-0.parquet", "plain_text/test-0.parquet", "train/a.parquet"):
        write(table([0, 1, 1]), tmp_path / name)
    with pytest.raises(DataError) as refused:
        open_source(f"parquet:{tmp_path}", "test")
    assert f"--data parquet:{tmp_path}/plain_text" in refused.value.hint
    (tmp_path / "plain_text").rename(tmp_path / "data")
    open_source(f"parquet:{tmp_path}", "test")
    (tmp_path / "data" / "test-0.parquet").unlink()
    with pytest.raises(DataError) as refused:
        open_source(f"parquet:{tmp_path}", "test")
    assert "did you mean" not in refused.value.hint


def test_files_that_are_left_out_of_a_split_are_said(tmp_path: Path) -> None:
    for name in ("train.parquet", "train-extra.parquet", "data/train-00000-of-00001.parquet", "test.parquet"):
        write(table([0, 1, 1]), tmp_path / name)
    heard = Heard()
    open_source(f"parquet:{tmp_path}", "train", progress=heard)
    (note,) = heard.notes
    assert "those of train-extra.parquet; left out train.parquet, data/train-00000-of-00001.parquet" in note


def test_files_of_which_each_could_be_the_test_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "dev", "valid"):
        write(table([0, 1, 1]), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="valid or dev"):
        open_source(f"parquet:{tmp_path}", "train")


def test_labels_from_columns_of_other_names_are_said(tmp_path: Path) -> None:
    write(table([0, 1, 1]), tmp_path / "train-a.parquet")
    write(table([0, 1, 1], column="target"), tmp_path / "train-b.parquet")
    heard = Heard()
    open_source(f"parquet:{tmp_path}", "train", progress=heard)
    assert "train-b.parquet are those of column target, of train-a.parquet label" in heard.notes[0]


def test_a_data_set_saved_to_disk_is_read(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
        (tmp_path / split).mkdir()
        made = table(labels, names=["cat", "dog"])
        file = str(tmp_path / split / "data-00000-of-00001.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
            writer.write_table(made)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    train = open_source(f"parquet:{tmp_path}", "train")
    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 1]
    assert np.array_equal(train.images, random_images(3))


def test_labels_that_are_strings_are_classes_in_sorted_order(tmp_path: Path) -> None:
    """Another column of integers beside them is not taken for the label."""
    write(table(["dog", "cat", "dog"], id=[5, 6, 7]), tmp_path / "train.parquet")
    write(table(["emu"], id=[8]), tmp_path / "test.parquet")
    train, test = (open_source(f"parquet:{tmp_path}", split) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog", "emu")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 1], [2])


@pytest.mark.parametrize("column", ["image_id", "id", "index", "width"])
def test_a_column_that_is_not_called_a_label_is_never_one(tmp_path: Path, column: str) -> None:
    write(table([0, 1], column=column), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=column) as caught:
        open_source(f"parquet:{tmp_path}", "train")
    assert "label" in caught.value.hint


def test_a_column_that_the_schema_calls_a_class_label_is_one_whatever_its_name(tmp_path: Path) -> None:
    write(table([1, 0], column="breed", names=["pug", "boxer"], id=[3, 4]), tmp_path / "train.parquet")
    train = open_source(f"parquet:{tmp_path}", "train")
    assert (train.classes, train.labels.tolist()) == (("pug", "boxer"), [1, 0])


def test_labels_that_are_true_or_false_are_two_classes(tmp_path: Path) -> None:
    write(table([True, False, True]), tmp_path / "train.parquet")
    train = open_source(f"parquet:{tmp_path}", "train")
    assert (train.classes, train.labels.tolist()) == (("0", "1"), [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "kind"), [([0.0, 1.0], "label (double)"), ([[0], [1]], "label (list<element: int64>)")]
)
def test_where_no_column_can_hold_labels_all_are_listed_with_their_types(
    tmp_path: Path, labels: list[Any], kind: str
) -> None:
    write(table(labels), tmp_path / "train.parquet")
    with pytest.raises(DataError) as caught:
        open_source(f"parquet:{tmp_path}", "train")
    assert kind in str(caught.value)
    assert "name the column" not in caught.value.hint  # it is called label
    assert "integers" in caught.value.hint


def test_a_test_split_without_labels_does_not_win_over_a_validation_split_with_labels(tmp_path: Path) -> None:
    write(table([0, 1]), tmp_path / "train.parquet")
    write(table([-1, -1, -1]), tmp_path / "test.parquet")
    write(table([1, 0]), tmp_path / "validation.parquet")
    heard = Heard()
    assert open_source(f"parquet:{tmp_path}", "test", progress=heard).labels.tolist() == [1, 0]
    (note,) = [note for note in heard.notes if "test.parquet" in note]
    assert note.count("validation.parquet") == 1


def test_a_folder_without_anything_known_is_listed(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cifar-100-python\.tar\.gz"):
        open_source(f"parquet:{tmp_path}", "train")
