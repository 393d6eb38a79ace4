"""Files that claim more than they hold, or more than fits, are refused with numbers before memory is taken."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from sources.tiny import encode, make_folder, make_npz, make_parquet, random_images
from torture.mutate_sources import make_sources, mutate_once

from bancache.errors import DataError, OutOfMemoryError
from bancache.sources import open_source
from bancache.sources.image_set import channel_statistics
from bancache.system import memory


def npz_of(file: Path, **members: bytes) -> Path:
    """An archive with the given members in place of the arrays of that name."""
    with zipfile.ZipFile(make_npz(file)) as old, io.BytesIO() as made:
        with zipfile.ZipFile(made, "w") as new:
            for name in old.namelist():
                new.writestr(name, members.get(name.removesuffix(".npy"), old.read(name)))
        content = made.getvalue()
    file.write_bytes(content)
    return file


def array_that_claims(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(100)


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    file = npz_of(tmp_path / "d.npz", train_images=array_that_claims((10**9, 32, 32, 3)))
    with pytest.raises(DataError, match="3,072,000,000,000 bytes, but holds 100"):
        open_source(f"npz:{file}", "train")


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    file = npz_of(tmp_path / "d.npz", train_labels=b"0 1 2 1 0")
    with pytest.raises(DataError, match=r"d\.npz"):
        open_source(f"npz:{file}", "train")


def test_an_array_that_does_not_fit_the_free_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_on_host", lambda: 50_000_000)
    zeros = np.zeros((30_000, 48, 48, 1), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", train_images=zeros, train_labels=np.zeros(30_000, np.int64))
    assert (tmp_path / "d.npz").stat().st_size < 200_000
    with pytest.raises(OutOfMemoryError, match=r"69,120,000 bytes of train_images.*0\.1 GB"):
        open_source(f"npz:{tmp_path / 'd.npz'}", "train")


def test_a_picture_too_large_for_the_free_memory_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_on_host", lambda: 50_000_000)
    root = make_folder(tmp_path)
    Image.new("L", (9000, 9000)).save(root / "train" / "cat" / "0.png")
    with pytest.raises(OutOfMemoryError, match=r"9,000 x 9,000 pixels of .*cat/0\.png.* 1\.3 GB"):
        open_source(f"folder:{root}", "train", image_size=8, skip_bad=True)


def test_statistics_of_large_pictures_take_little_memory() -> None:
    images = np.full((2, 1500, 1501, 3), 7, np.uint8)
    tracemalloc.start()
    assert channel_statistics(images).mean == (7.0, 7.0, 7.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * images.nbytes


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    rows = 1_000_000
    cells = pa.nulls(rows, pa.binary())
    pa.parquet.write_table(
        pa.table({"image": cells, "label": np.zeros(rows, np.int64)}), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError, match=r"1,000,000 rows in [\d,]{3,6} bytes"):
        open_source(f"parquet:{tmp_path}", "train")


def test_a_row_group_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_on_host", lambda: 50_000_000)
    cells = [encode(random_images(1)[0]), bytes(70_000_000)]
    pa.parquet.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(OutOfMemoryError, match=r"70,\d\d\d,\d\d\d bytes .*train\.parquet"):
        open_source(f"parquet:{tmp_path}", "train")


def test_a_row_group_that_is_a_thousand_times_its_file_is_refused(tmp_path: Path) -> None:
    """Black pixels that a few bytes stand for, which would take four times their size."""
    cells = pa.table({"image": [bytes(70_000_000)], "label": [0]})
    pa.parquet.write_table(cells, tmp_path / "train.parquet", compression="zstd")
    held = (tmp_path / "train.parquet").stat().st_size
    assert held < 70_000
    with pytest.raises(DataError, match=rf"70,\d\d\d,\d\d\d bytes, in a file of {held:,}"):
        open_source(f"parquet:{tmp_path}", "train")


def test_shards_may_hold_structs_and_bytes(tmp_path: Path) -> None:
    root = make_parquet(tmp_path)
    whole = open_source(f"parquet:{root}", "train").fingerprint
    shard = root / "train-00001-of-00002.parquet"
    made = pa.parquet.read_table(shard)
    plain = made.set_column(0, "img", pa.array([cell["bytes"] for cell in made["img"].to_pylist()]))
    pa.parquet.write_table(plain, shard)
    assert open_source(f"parquet:{root}", "train").fingerprint == whole


def test_shards_with_other_class_names_are_refused(tmp_path: Path) -> None:
    """The same number would mean two classes."""
    root = make_parquet(tmp_path / "a")
    other = make_parquet(tmp_path / "b", names=["bee", "ant", "cow"])
    for name in ("train-00001-of-00002.parquet", "test-00000-of-00001.parquet"):
        content = (root / name).read_bytes()
        (root / name).write_bytes((other / name).read_bytes())
        with pytest.raises(DataError, match=name):
            open_source(f"parquet:{root}", "train")
        (root / name).write_bytes(content)


def test_labels_that_are_numbers_in_one_split_and_strings_in_the_other_are_refused(tmp_path: Path) -> None:
    cells = [encode(image) for image in random_images(2)]
    for split, labels in (("train", [0, 1]), ("test", ["0", "1"])):
        pa.parquet.write_table(pa.table({"image": cells, "label": labels}), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"number .* string"):
        open_source(f"parquet:{tmp_path}", "train")


def test_mutated_files_open_or_end_in_one_of_our_errors(tmp_path: Path) -> None:
    draw, sources = random.Random(0), make_sources(tmp_path)
    ends = {mutate_once(tmp_path, sources, draw) for _ in range(60)}
    assert {"opened", "DataError"} <= ends
