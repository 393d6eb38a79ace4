"""Folders and parquet files whose pixels do not fit half of the free memory are decoded where they lie, and a note says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from contracts.calling import succeed
from contracts.photographs import write_photographs
from contracts.stored import reading_threads
from sources.tiny import Heard, make_folder, make_parquet

from bancache.errors import DataError
from bancache.models.checkpoint import load_checkpoint
from bancache.sources import open_source
from bancache.sources.arrow_files import read_group
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.stored import StoredImages

Limit = Callable[[int], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Let so many bytes be free where pixels are kept or not."""

    def have(free: int) -> None:
        monkeypatch.setattr("bancache.sources.decoded.free_on_host", lambda: free)

    return have


def opened(source: str, split: str, kept: Path, **options: object) -> tuple[ImageSet, Heard]:
    heard = Heard()
    return open_source(source, split, progress=heard, cache_dir=kept, **options), heard  # type: ignore[arg-type]


def make_streams(root: Path) -> Path:
    """Write what ``make_parquet`` writes as a data set saved to disk: Arrow streams, with two rows in a batch."""
    root.mkdir()
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for file in make_parquet(root / "parquet").iterdir():
        split, _, number = file.stem.partition("-")
        (root / split).mkdir(exist_ok=True)
        rows = pyarrow.parquet.read_table(file)
        saved = str(root / split / f"data-{number}.arrow")
        with pa.OSFile(saved, "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=2)
    shutil.rmtree(root / "parquet")
    return root


def require_same(found: ImageSet, wanted: ImageSet) -> None:
    assert isinstance(found.images, StoredImages)
    assert (found.fingerprint, found.statistics) == (wanted.fingerprint, wanted.statistics)
    assert (found.classes, found.paths, found.uniform) == (wanted.classes, wanted.paths, wanted.uniform)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    for sample in reversed(range(len(wanted))):
        np.testing.assert_array_equal(found.images.read(sample), wanted.images[sample])


@pytest.mark.parametrize("kind", ["photographs", "folder", "parquet", "resized"])
def test_pictures_are_those_from_memory_and_a_second_start_decodes_nothing(
    tmp_path: Path, kind: str, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = {"folder": make_folder, "parquet": make_parquet}.get(kind, write_photographs)
    source = f"{'parquet' if kind == 'parquet' else 'folder'}:{make(tmp_path / 'data')}"
    size = {"image_size": 16} if kind == "resized" else {}
    for split in ("train", "test"):
        wanted, told = opened(source, split, tmp_path / "memory", **size)
        limit(2 * wanted.images.nbytes - 1)
        found, heard = opened(source, split, tmp_path / "streamed", **size)
        require_same(found, wanted)
        assert heard.decoded == len(wanted)
        assert heard.notes[:-1] == told.notes
        assert f"{len(wanted):,} pictures" in heard.notes[-1]
        with monkeypatch.context() as patch:
            for name in ("pictures.decode", "pictures.look", "encoded.decode"):
                patch.setattr(f"bancache.sources.{name}", None)
            again, second = opened(source, split, tmp_path / "streamed", **size)
            assert (again.fingerprint, again.statistics) == (wanted.fingerprint, wanted.statistics)
        require_same(again, wanted)
        assert (second.notes, second.decoded) == (heard.notes, 0)
        limit(2 * wanted.images.nbytes)
        fitting, _ = opened(source, split, tmp_path / "streamed", **size)
        assert not isinstance(fitting.images, StoredImages)
        assert fitting.fingerprint == wanted.fingerprint
    assert reading_threads() == []


@pytest.mark.parametrize("kind", ["folder", "parquet", "arrow"])
@pytest.mark.parametrize("balanced", [True, False])
def test_some_of_them_are_those_from_memory(tmp_path: Path, kind: str, balanced: bool, limit: Limit) -> None:
    root = {"folder": make_folder, "parquet": make_parquet, "arrow": make_streams}[kind](tmp_path / "data")
    spec = DataSpec(f"{'folder' if kind == 'folder' else 'parquet'}:{root}", limit=4, balanced=balanced)
    wanted = spec.open("train", cache_dir=tmp_path / "memory")
    limit(1)
    found = spec.open("train", cache_dir=tmp_path / "streamed")
    require_same(found, wanted)
    require_same(found.first(3), wanted.first(3))
    require_same(found.first_of_each(3), wanted.first_of_each(3))


def test_bad_pictures_are_named_or_left_out_as_before(tmp_path: Path, limit: Limit) -> None:
    root = write_photographs(tmp_path / "data", train=12, test=3)
    (root / "train/columns/bad.png").write_bytes(b"no picture")
    wanted, told = opened(f"folder:{root}", "train", tmp_path / "memory", skip_bad=True)
    limit(1000)
    with pytest.raises(DataError, match=r"bad\.png"):
        opened(f"folder:{root}", "train", tmp_path / "streamed")
    found, heard = opened(f"folder:{root}", "train", tmp_path / "streamed", skip_bad=True)
    require_same(found, wanted)
    assert heard.notes[:-1] == told.notes
    assert "bad.png" in heard.notes[-2]


def test_a_picture_that_changes_while_it_is_used_is_refused_with_sample_and_path(
    tmp_path: Path, limit: Limit
) -> None:
    root = write_photographs(tmp_path / "data", train=6, test=3)
    limit(1000)
    found, _ = opened(f"folder:{root}", "train", tmp_path / "streamed")
    assert found.paths is not None
    pictures: Any = found.images
    first, second = (Path(path) for path in found.paths[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=rf"sample 1: {second}"):
        pictures.read(1)
    first.unlink()
    with pytest.raises(DataError, match=rf"sample 0: {first}"):
        pictures.read(0)


def test_rows_of_parquet_are_read_a_row_group_at_a_time(
    tmp_path: Path, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(1)
    found, _ = opened(f"parquet:{make_parquet(tmp_path)}", "train", tmp_path / "kept")
    pictures: Any = found.images
    pictures.close()
    groups: list[int] = []

    def read(file: Path, group: int, path: str) -> list[Any]:
        groups.append(group)
        return read_group(file, group, path)

    monkeypatch.setattr("bancache.sources.rows.read_group", read)
    for sample in range(5):
        pictures.read(sample)
    assert groups == [0, 1, 0]  # two rows and one, then two of the next file
    pictures.read(4)
    assert len(groups) == 3


def test_commands_work_from_end_to_end_with_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_photographs(tmp_path / "data")
    found: list[object] = []
    for name, free in (("memory", 10**12), ("streamed", 1000)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setattr("bancache.sources.decoded.free_on_host", lambda free=free: free)
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        succeed(
            "train-teacher", "--data", f"folder:{root}", "--model", "convnet-4", "--size", "16", "--epochs", "1",
            "--batch-size", "12",
        )  # fmt: skip
        dumped = succeed("dump", "--teacher", "gen0.pt", "--num-views", "2")
        student = succeed("train-student", "--cache", "gen0.zarr", "--epochs", "1", "--batch-size", "12")
        tested = {key: one for key, one in succeed("evaluate", "gen1.pt").items() if isinstance(one, float)}
        seen = succeed("view", "gen0.zarr", "--sample", "7", "--view", "1", "--out", "pictures")["views"][0]
        png = Path(seen["student"]["file"]).read_bytes()
        weights = [load_checkpoint(f"gen{number}.pt").fingerprint for number in (0, 1)]
        found.append((weights, dumped["digest"], tested, seen["params"], seen["path"], png))
        assert ("decoded whenever" in " ".join(student["notes"])) == (name == "streamed")
    assert found[0] == found[1]
    assert reading_threads() == []
