"""Pictures that cannot be read: one run names all of them, and they can be left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contracts.calling import refuse, succeed
from sources.tiny import Heard, make_folder, make_parquet

from bancache.errors import DataError
from bancache.sources import open_source
from bancache.sources.spec import DataSpec


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A folder in which one picture of each class of each split cannot be read, among them the very first one."""
    root = make_folder(tmp_path / "torn")
    for file in ("train/cat/0.png", "train/dog/1.png", "test/dog/0.png"):
        (root / file).write_bytes((root / file).read_bytes()[:50])
    return root


def test_one_run_names_all_unreadable_pictures_of_both_splits(torn: Path) -> None:
    with pytest.raises(DataError, match="3 of 8") as caught:
        open_source(f"folder:{torn}", "train")
    for file in ("train/cat/0.png", "train/dog/1.png", "test/dog/0.png"):
        assert file in str(caught.value)
    assert "--skip-bad" in caught.value.hint


def test_of_many_the_first_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for number in range(20, 40):
        (root / "train" / "cat" / f"{number}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"20 of 28.*29\.png, …") as caught:
        open_source(f"folder:{root}", "train")
    assert "30.png" not in str(caught.value).partition("…")[0]


def test_skip_bad_leaves_them_out_and_says_so(torn: Path) -> None:
    heard = Heard()
    found = DataSpec(f"folder:{torn}", skip_bad=True).open("train", progress=heard)
    assert found.labels.tolist() == [0, 0, 1]
    (note,) = heard.notes
    assert "2 of 5" in note
    assert "train/cat/0.png" in note


def test_what_is_left_is_the_data_set_without_those_files_now_and_when_opened_again(torn: Path) -> None:
    spec = DataSpec(f"folder:{torn}", skip_bad=True)
    first, recorded = spec.open("train"), DataSpec.from_dict(spec.to_dict())
    again = recorded.open("train")
    (torn / "train/cat/0.png").unlink()
    (torn / "train/dog/1.png").unlink()
    (torn / "test/dog/0.png").unlink()
    clean = open_source(f"folder:{torn}", "train")
    assert first.fingerprint == again.fingerprint == clean.fingerprint
    assert np.array_equal(again.images, clean.images)


def test_without_a_place_to_keep_pixels_they_are_left_out_too(torn: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = DataSpec(f"folder:{torn}", skip_bad=True)
    in_memory = spec.open("train", cache_dir=tmp_path / "file" / "below")
    assert in_memory.fingerprint == spec.open("train").fingerprint


def test_rows_of_parquet_files_are_left_out_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    root = make_parquet(tmp_path)
    shard = root / "train-00000-of-00002.parquet"
    table = pa.parquet.read_table(shard)
    cells = table["img"].to_pylist()
    cells[1]["bytes"], cells[2]["bytes"] = None, b"no picture"
    column = pa.array(cells, table.schema.field("img").type)
    pa.parquet.write_table(table.set_column(0, table.schema.field("img"), column), shard)
    assert open_source(f"parquet:{root}", "train", skip_bad=True).labels.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"2 of 8.*row 1, .*row 2"):
        open_source(f"parquet:{root}", "train")


def test_a_split_without_a_readable_picture_is_refused_all_the_same(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for file in (root / "train").rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(DataError, match="no images that can be read"):
        open_source(f"folder:{root}", "train", skip_bad=True)


def test_a_spec_without_skip_bad_is_written_as_older_versions_wrote_it() -> None:
    assert DataSpec("digits").to_dict() == {"source": "digits", "limit": None, "image_size": None}


def test_a_teacher_records_what_was_left_out_for_the_commands_after_it(torn: Path, tmp_path: Path) -> None:
    size = (
        "--image-size",
        "8",
        "--model",
        "convnet-2",
        "--epochs",
        "1",
        "--batch-size",
        "2",
        "--views",
        "flip",
    )
    teach = ("train-teacher", "--data", f"folder:{torn}", *size, "--out", tmp_path / "gen0.pt")
    assert "--skip-bad" in refuse(1, "3 of 8", *teach)
    told = succeed(*teach, "--skip-bad")
    assert sum("2 of 5" in note for note in told["notes"]) == 1
    assert succeed("dump", "--teacher", tmp_path / "gen0.pt", "--num-views", "1")["samples"] == 3
    assert succeed("evaluate", tmp_path / "gen0.pt")["samples"] == 2
