"""A cache goes on where it stopped, and only for who began it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from contracts.damage import DAMAGES
from contracts.killing import tree
from contracts.small_cache import (
    Q,
    facts,
    fields,
    manifest,
    summarize,
    write,
    write_some,
)

from bancache.cache.layout import Shard
from bancache.cache.manifest_io import seal
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def undisturbed(sound: Path) -> dict[str, bytes]:
    return tree(sound)


def pending(path: Path) -> list[int]:
    with open_writer(path, manifest()) as writer:
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


def test_versions_and_paths_of_who_goes_on_do_not_show(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = write_some(tmp_path / "a.zarr", [0])
    write(path, manifest(created_with={"bancache": "99"}))
    assert tree(path) == undisturbed


def test_facts_go_through_the_disk_unchanged(tmp_path: Path) -> None:
    path = write_some(tmp_path / "a.zarr", range(9))
    seen: list[dict[str, Any]] = []

    def look(found: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(found)
        return summarize(found)

    with open_writer(path, manifest()) as writer:
        assert writer is not None
        writer.finish(look)
    assert seen == [facts(Shard(0, 0, 0, 0, rows)) for rows in (14, 14, 12)] * 3


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("file", ["q/c/1/2/0", "shift/c/1/2", ".regions/000005.json"])
def test_a_shard_that_is_not_as_recorded_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    """The last block of a view index, whose chunk is filled up: Zarr would read what is there before writing."""
    path = write_some(tmp_path / "a.zarr", range(9))
    other = {"q/c/1/2/0": "q/c/0/2/0", "shift/c/1/2": "shift/c/0/2"}.get(file, ".regions/000002.json")
    DAMAGES[way](path / file, path / other)
    for leftover in path.rglob("*.aside"):
        leftover.rename(tmp_path / "aside")
    if (path / file).is_dir():
        (path / file).rmdir()
    assert 5 in pending(path)
    assert tree(write(path)) == undisturbed


@pytest.mark.parametrize("way", ["flipped", "truncated", "emptied", "deleted", "appended to"])
@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json", "shift/zarr.json"])
def test_a_damaged_description_is_written_again(
    tmp_path: Path, undisturbed: dict[str, bytes], file: str, way: str
) -> None:
    path = write_some(tmp_path / "a.zarr", range(5))
    DAMAGES[way](path / file, path / "manifest.json")
    assert tree(write(path)) == undisturbed


def test_a_description_damaged_while_the_rest_is_written_is_not_vouched_for(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.zarr", manifest()) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(shard, fields(manifest(), shard), facts(shard))
        DAMAGES["flipped"](tmp_path / "a.zarr" / "q" / "zarr.json", tmp_path)
        writer.finish(summarize)
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json is damaged"):
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
    (path / ".regions" / "000000.json").write_text(json.dumps(seal({**record, **change})))
    (path / ".regions" / "stray.json").write_text("[1, 2]")
    assert pending(path) == list(range(9))
    assert tree(write(path)) == undisturbed


def test_a_record_with_another_fact_is_not_believed(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Its files are as written, but what the summary is made of is not."""
    path = write_some(tmp_path / "a.zarr", range(9))
    record = path / ".regions" / "000004.json"
    record.write_text(record.read_text().replace('"rows": 14', '"rows": 15'))
    assert pending(path) == [4]
    assert tree(write(path)) == undisturbed


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    (
        {"dataset": {"fingerprint": "a" * 64}},
        "data set: made with 'dddddddddddd', but this run has 'aaaaaaaaaaaa'",
    ),
    (
        {"teacher": {"fingerprint": "a" * 64}},
        "teacher: made with 'eeeeeeeeeeee', but this run has 'aaaaaaaaaaaa'",
    ),
    (
        {"view_space": {"id": "lattice-1", "pad": 4}},
        "view space: made with id lattice-1, pad 1, but this run has id lattice-1, pad 4",
    ),
    ({"num_views": 4}, "number of views: made with 3, but this run has 4"),
    ({"encoding": {"name": "root4"}}, "encoding: made with name test, but this run has name root4"),
    (
        {"fields": (Q, FieldSpec("shift", "float16", (), ()))},
        "arrays: made with q uint8[10], shift float32[], but this run has q uint8[10], shift float16[]",
    ),
    ({"classes": 11}, "classes: made with 10, but this run has 11"),
    ({"samples": 41}, "samples: made with 40, but this run has 41"),
    ({"pixels": {"golden": "01"}}, "pixels: made with golden 00, but this run has golden 01"),
    (
        {"compute": {"batch_size": 99}},
        "teacher's forward pass: made with batch_size 100, but this run has batch_size 99",
    ),
]


@pytest.mark.parametrize(("change", "said"), DIFFERENT)
@pytest.mark.parametrize("complete", [False, True])
def test_another_promise_is_refused_with_both_values(
    tmp_path: Path, change: dict[str, Any], said: str, complete: bool
) -> None:
    path = write(tmp_path / "a.zarr") if complete else write_some(tmp_path / "a.zarr", [0])
    before = tree(path)
    with pytest.raises(MismatchError, match=f"^{re.escape(said)}$") as caught:
        write(path, manifest(**change))
    assert caught.value.hint == "use the same settings, another --out, or --overwrite to start anew"
    assert tree(path) == before


def test_a_complete_cache_is_left_alone(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = write(tmp_path / "a.zarr")
    with open_writer(path, manifest()) as writer:
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
