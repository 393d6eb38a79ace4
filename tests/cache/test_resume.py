"""A cache goes on where it stopped, and only with the same manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from contracts.damage import DAMAGES
from contracts.killing import tree
from contracts.small_cache import (
    Q,
    facts,
    fields,
    make_manifest,
    summarize,
    write,
    write_some,
)

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import sign
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def undisturbed(sound: Path) -> dict[str, bytes]:
    return tree(sound)


def pending(path: Path) -> list[int]:
    with open_writer(path, make_manifest()) as writer:
        assert writer is not None
        return [shard.index for shard in writer.pending()]


def test_the_rest_is_written_and_nothing_shows_that_there_was_a_pause(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write_some(tmp_path / "a.zarr", [4, 0, 8])
    assert pending(path) == [1, 2, 3, 5, 6, 7]
    write_some(path, [7])
    write_some(path, [])
    assert pending(path) == [1, 2, 3, 5, 6]
    assert tree(write(path)) == undisturbed


def test_versions_of_the_writer_that_goes_on_do_not_show(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    write(path, make_manifest(created_with={"bancache": "99"}))
    assert tree(path) == undisturbed


def test_facts_go_through_the_disk_unchanged(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", range(9))
    seen: list[dict[str, Any]] = []

    def look(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(found)
        return summarize(found)

    with open_writer(path, make_manifest()) as writer:
        assert writer is not None
        writer.finish(look)
    assert seen == [facts(Shard(0, 0, 0, 0, rows)) for rows in (14, 14, 12)] * 3


def test_facts_are_read_one_shard_after_another(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Those of a large cache would fill the memory; a record that is gone by then is an error, and the shard is redone."""
    path = write_some(tmp_path / "a.zarr", range(9))

    def look(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        assert (len(found), found[8], found[7:]) == (9, found[-1], [facts(Shard(0, 0, 0, 14, 28)), found[8]])
        (path / ".regions" / "000004.json").unlink()
        assert found[3]["rows"] == 14
        return summarize(found)

    with open_writer(path, make_manifest()) as writer:
        assert writer is not None
        with pytest.raises(CacheDamagedError, match=r"000004\.json"):
            writer.finish(look)
    assert pending(path) == [4]
    assert tree(write(path)) == undisturbed


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("file", ["q/c/1/2/0", "shift/c/1/2", ".regions/000005.json"])
def test_a_shard_that_is_not_as_recorded_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    """The last block of a view, whose chunk is padded."""
    path = write_some(tmp_path / "a.zarr", range(9))
    other = {"q/c/1/2/0": "q/c/0/2/0", "shift/c/1/2": "shift/c/0/2"}.get(file, ".regions/000002.json")
    DAMAGES[way](path / file, path / other)
    for leftover in path.rglob("*.aside"):
        leftover.rename(tmp_path / "aside")
    if (path / file).is_dir():
        (path / file).rmdir()
    # A file that kept its size is read at the end, and its shard is written then.
    if way not in ("flipped", "swapped") or file.startswith(".regions"):
        assert 5 in pending(path)
    assert tree(write(path)) == undisturbed


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The chunk files of a.zarr that are read for their sha256, in order."""
    names: list[str] = []
    real = hashlib.file_digest

    def watched(stream: Any, *args: Any) -> Any:
        key = stream.name.partition("a.zarr/")[2]
        names.extend([key] if "/c/" in key else [])
        return real(stream, *args)

    monkeypatch.setattr(hashlib, "file_digest", watched)
    return names


def test_nothing_that_is_recorded_is_read_before_the_end_and_then_each_file_once(
    tmp_path: Path, undisturbed: dict[str, bytes], read: list[str]
) -> None:
    path = write_some(tmp_path / "a.zarr", range(8))
    write_some(path, [])
    read.clear()
    with open_writer(path, make_manifest()) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        writer.write_shard(shard, fields(make_manifest(), shard), facts(shard))
        assert read == []
        assert writer.finish(summarize)
    layout = Layout(make_manifest())
    assert read == [key for index in range(8) for key in layout.chunk_keys(layout.shard(index))]
    assert tree(path) == undisturbed


def test_a_compact_cache_goes_on_after_reading_only_what_the_rest_is_relative_to(
    tmp_path: Path, read: list[str]
) -> None:
    """Shard 1 is view 0 of the samples of shard 7; a bit of it is flipped, and one of a view 0 that nothing needs yet."""
    manifest = make_manifest(profile="compact")
    undisturbed = tree(write(tmp_path / "plain.zarr", manifest))
    path = write_some(tmp_path / "a.zarr", [0, 1, 2, 3, 4, 5, 6, 8], manifest)
    for key in ("q/c/0/1/0", "q/c/0/2/0"):
        DAMAGES["flipped"](path / key, path)
    read.clear()
    with open_writer(path, manifest) as writer:
        assert writer is not None
        assert [shard.index for shard in writer.pending()] == [1, 4, 7]
        assert read == ["q/c/0/1/0"]
    assert tree(write(path, manifest)) == undisturbed


@pytest.mark.parametrize("way", ["flipped", "truncated", "emptied", "deleted", "appended to"])
@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json", "shift/zarr.json"])
def test_a_damaged_description_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    path = write_some(tmp_path / "a.zarr", range(5))
    DAMAGES[way](path / file, path / "manifest.json")
    assert tree(write(path)) == undisturbed


def test_a_zarr_json_damaged_while_the_rest_is_written_is_found(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.zarr", make_manifest()) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(shard, fields(make_manifest(), shard), facts(shard))
        DAMAGES["flipped"](tmp_path / "a.zarr" / "q" / "zarr.json", tmp_path)
        writer.finish(summarize)
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json"):
        open_cache(tmp_path / "a.zarr").read_view(0)


@pytest.mark.parametrize(
    "change",
    [
        {"promise": "f" * 64},
        {"region": 9},
        {"region": -1},
        {"region": True},
        {"region": "0"},
        {"files": {}},
        {"files": {"q/c/0/0/0": [1, "f" * 64], "../../etc/passwd": [1, "f" * 64]}},
        {"files": {"q/c/0/0/0": 1, "shift/c/0/0": 2}},
    ],
)
def test_a_record_that_no_writer_of_this_cache_made_is_not_believed(
    tmp_path: Path, undisturbed: dict[str, bytes], change: dict[str, Any]
) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    record = json.loads((path / ".regions" / "000000.json").read_text())
    del record["digest"]
    (path / ".regions" / "000000.json").write_text(json.dumps(sign({**record, **change})))
    (path / ".regions" / "stray.json").write_text("[1, 2]")
    assert pending(path) == list(range(9))
    assert tree(write(path)) == undisturbed


def test_a_record_with_another_fact_is_not_believed(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Its files are as written, but the facts that the summary is made of are not."""
    path = write_some(tmp_path / "a.zarr", range(9))
    record = path / ".regions" / "000004.json"
    record.write_text(record.read_text().replace('"rows": 14', '"rows": 15'))
    assert pending(path) == [4]
    assert tree(write(path)) == undisturbed


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    ({"dataset": {"fingerprint": "a" * 64}}, "data set.*'d{12}'.*'a{12}'"),
    ({"teacher": {"fingerprint": "a" * 64}}, "teacher.*'e{12}'.*'a{12}'"),
    ({"view_space": {"id": "lattice-1", "pad": 4}}, "view space: .*pad 1.* but .*pad 4"),
    ({"num_views": 4}, "views.* 3.* 4"),
    ({"encoding": {"name": "root4"}}, "encoding.*'test'.*'root4'"),
    ({"encoding": {"id": "test-2"}}, "encoding.*name test.*id test-2"),
    (
        {"fields": (Q, FieldSpec("shift", "float16", (), ()))},
        r"arrays.*q uint8\[10\], shift float32\[\].*q uint8\[10\], shift float16\[\]",
    ),
    ({"classes": 11}, "classes.* 10.* 11"),
    ({"samples": 41}, "samples.* 40.* 41"),
    ({"pixels": {"golden": "01"}}, "pixels.* 00.* 01"),
    ({"pixels": {"size": [8, 9]}}, r"size of the teacher.* None\b.*\(8, 9\)"),
    ({"shard_samples": 20}, r"samples of a shard.* None\b.*20"),
    ({"profile": "mmap"}, "profile.*default.*mmap"),
    ({"compute": {"batch_size": 99}}, "forward pass.*batch_size 100.*batch_size 99"),
]


@pytest.mark.parametrize(("change", "said"), DIFFERENT)
@pytest.mark.parametrize("complete", [False, True])
def test_another_manifest_is_refused_with_both_values(
    tmp_path: Path, change: dict[str, Any], said: str, complete: bool
) -> None:
    path = write(tmp_path / "a.zarr") if complete else write_some(tmp_path / "a.zarr", [0])
    before = tree(path)
    with pytest.raises(MismatchError, match=said) as caught:
        write(path, make_manifest(**change))
    assert "--out" in caught.value.hint
    assert "--overwrite" in caught.value.hint
    assert tree(path) == before


def test_a_complete_cache_is_left_alone(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = write(tmp_path / "a.zarr")
    with open_writer(path, make_manifest()) as writer:
        assert writer is None
    assert tree(path) == undisturbed


def test_what_a_writer_killed_at_its_end_left_is_cleared(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    path = write(tmp_path / "a.zarr")
    (path / ".regions").mkdir()
    (path / ".regions" / "000000.json").write_text("{}")
    (path / "q" / "zarr.json.12345678.partial").write_text("half")
    (path / ".writer.json").write_text("{}")
    assert tree(write(path)) == undisturbed
