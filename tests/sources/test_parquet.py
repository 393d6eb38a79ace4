"""Parquet in the hub's layout: which files, which columns, which class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources.tiny import make_parquet, make_shard, random_images

from bancache.errors import DataError
from bancache.sources import open_source

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar100"


def test_shards_in_order_with_names_from_the_schema(tmp_path: Path) -> None:
    """Shards are joined by name, rows keep their order, class names come from the metadata."""
    train = open_source(f"parquet:{make_parquet(tmp_path)}", "train")
    assert np.array_equal(train.images, random_images(8)[:5])
    assert train.labels.tolist() == [0, 1, 2, 1, 0]
    assert train.classes == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    "options",
    [
        {"image": "image", "label": "label"},
        {"image": "picture", "label": "target"},
        {"plain": True},
        {"image": "jpg", "plain": True, "label": "cls"},
        {"extra": {"coarse_label": [0], "label": [0]}},
        {"image": "image", "extra": {"mask": [b""]}},
    ],
    ids=str,
)
def test_columns_are_found(tmp_path: Path, options: dict[str, Any]) -> None:
    """Usual names win over others of the same type; unusual ones are found if they are the only ones."""
    sized = {name: values * 3 for name, values in options.pop("extra", {}).items()}
    make_shard(tmp_path / "train-00000-of-00001.parquet", random_images(3), [2, 0, 1], extra=sized, **options)
    train = open_source(f"parquet:{tmp_path}", "train")
    assert np.array_equal(train.images, random_images(3))
    assert train.labels.tolist() == [2, 0, 1]
    assert train.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "a", "extra": {"b": [b"x"]}}, "image.*a, b"),
        ({"image": "img", "extra": {"image": [b"x"]}}, "image.*img, image"),
        ({"label": "a", "extra": {"b": [1]}}, "label.*a, b"),
    ],
    ids=["two images", "both usual names", "two labels"],
)
def test_ambiguous_columns_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Where a guess could be wrong, the candidates are shown instead."""
    make_shard(tmp_path / "train-00000-of-00001.parquet", random_images(1), [0], **options)
    with pytest.raises(DataError, match=message):
        open_source(f"parquet:{tmp_path}", "train")


def test_numbered_classes_are_the_same_in_both_splits(tmp_path: Path) -> None:
    """Without names the classes are those of both splits, though training lacks the last."""
    make_shard(tmp_path / "data" / "train-00000-of-00001.parquet", random_images(2), [0, 1])
    make_shard(tmp_path / "data" / "validation-00000-of-00001.parquet", random_images(2, seed=1), [3, 1])
    for split in ("train", "test"):
        assert open_source(f"parquet:{tmp_path}", split).classes == ("0", "1", "2", "3")


def test_missing_files(tmp_path: Path) -> None:
    """A shard that its neighbors count is missed; so is a whole split, or the directory."""
    make_parquet(tmp_path)
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"2 .*train-00001-of-00002\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"train-\*\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")
    with pytest.raises(DataError, match="/none"):
        open_source(f"parquet:{tmp_path / 'none'}", "train")


def test_damaged_rows_and_files_are_named(tmp_path: Path) -> None:
    """An image that cannot be decoded, a row without bytes or label, a truncated file: file and row are named."""
    import pyarrow as pa
    import pyarrow.parquet

    file = tmp_path / "train-00000-of-00001.parquet"
    good = {"bytes": b"no image", "path": "x"}
    for rows, labels, message in (
        ([good], [0], r"train-00000-of-00001\.parquet row 0"),
        ([{"bytes": None, "path": "x"}], [0], "row 0"),
        ([good], [None], "1 .*label"),
        ([good], [1 << 40], "1099511627776"),
    ):
        pa.parquet.write_table(
            pa.table({"img": pa.array(rows, _image_type()), "label": pa.array(labels, pa.int64())}), file
        )
        with pytest.raises(DataError, match=message) as caught:
            open_source(f"parquet:{tmp_path}", "train")
        assert caught.value.hint
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")


def _image_type() -> Any:
    import pyarrow as pa

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_shards_that_disagree(tmp_path: Path) -> None:
    """A shard without the columns of the first one is named."""
    make_parquet(tmp_path)
    make_shard(tmp_path / "train-00001-of-00002.parquet", random_images(1), [0], image="other")
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")


@pytest.mark.parametrize("names", [{"0": "ant"}, [1, 2]])
def test_class_names_of_another_form(tmp_path: Path, names: Any) -> None:
    """Names that are no list of strings are refused, not guessed at."""
    make_shard(tmp_path / "train-00000-of-00001.parquet", random_images(1), [0], names=names)
    with pytest.raises(DataError, match=r"\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real CIFAR-100 is not beside this repository")
def test_first_thousand_of_the_real_cifar100(tmp_path: Path) -> None:
    """The real files are lossless: the first thousand images are the same pixels on every machine."""
    import pyarrow.parquet

    for name in ("train-00000-of-00003", "test-00000-of-00001"):
        with pyarrow.parquet.ParquetFile(REAL / f"{name}.parquet") as file:
            target = tmp_path / f"{name.split('-')[0]}-00000-of-00001.parquet"
            pyarrow.parquet.write_table(file.read_row_group(0), target)
    train, test = (open_source(f"parquet:{tmp_path}", split) for split in ("train", "test"))
    assert train.images.shape == test.images.shape == (1000, 32, 32, 3)
    assert (len(train.classes), train.classes[:2], train.classes[99]) == (
        100,
        ("apple", "aquarium_fish"),
        "worm",
    )
    assert [train.classes[label] for label in train.labels[:2]] == ["clock", "boy"]
    assert train.fingerprint == "359b0a3513c9c73dde18b137ae8acb2cfa1c70656908f60213a0f6af7d331e87"
    assert test.fingerprint == "5a887f5e5851e6c8538f8841733c7bbf50d5beb4d4706e04a5f9ee22f662aee7"


def test_as_many_files_as_there_should_be_and_not_those_are_refused(tmp_path: Path) -> None:
    for name, seed in (("train-00000-of-00002", 0), ("train-00001-of-00003", 1)):
        make_shard(tmp_path / f"{name}.parquet", random_images(1, seed=seed), [0])
    with pytest.raises(DataError, match=r"2 .*train-00001-of-00003\.parquet"):
        open_source(f"parquet:{tmp_path}", "train", cache_dir=tmp_path / "kept")
