"""Result lines: each once, and a torn one loses nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.powercut import Disk

from bancache.errors import DataError
from bancache.report.results import append_once, append_record, read_records


def test_a_record_comes_back_with_its_time(tmp_path: Path) -> None:
    append_record(tmp_path / "r.jsonl", {"kind": "run", "weights": "a", "text": "ü\n"})
    (record,) = read_records(tmp_path / "r.jsonl")
    assert record.pop("time").endswith("+00:00")
    assert record == {"kind": "run", "weights": "a", "text": "ü\n"}


def test_a_record_is_appended_once_for_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for weights, out in (("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")):
        append_once(path, {"kind": "run", "weights": weights, "out": out}, "weights", "out")
    append_once(path, {"kind": "dump", "weights": "a", "out": "x"}, "weights", "out")
    assert [(r["kind"], r["weights"], r["out"]) for r in read_records(path)] == [
        ("run", "a", "x"),
        ("run", "a", "y"),
        ("run", "b", "x"),
        ("dump", "a", "x"),
    ]


@pytest.mark.parametrize("torn", ['{"kind": "run", "weig', '{"kind": "run"}'])
def test_a_torn_last_line_harms_no_other(tmp_path: Path, torn: str) -> None:
    """A power cut left a line without its end; the next line begins on its own."""
    path = tmp_path / "r.jsonl"
    append_record(path, {"kind": "run", "n": 1})
    with path.open("a") as stream:
        stream.write(torn)
    whole = [1] if torn.endswith("g") else [1, None]
    assert [r.get("n") for r in read_records(path)] == whole
    append_record(path, {"kind": "run", "n": 2})
    assert [r.get("n") for r in read_records(path)] == [*whole, 2]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"kind": "run"}\n[1]\n')
    with pytest.raises(DataError, match="line 2"):
        read_records(tmp_path / "r.jsonl")
    with pytest.raises(DataError, match=r"none\.jsonl"):
        read_records(tmp_path / "none.jsonl")


def test_a_line_that_was_appended_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one makes the file, whose name is in the folder."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    for number in (1, 2):
        append_once(tmp_path / "disk" / "results.jsonl", {"kind": "run", "seed": number}, "seed")
        left = disk.restore(disk.state(), tmp_path / f"after-{number}")
        assert [r["seed"] for r in read_records(left / "results.jsonl")] == [1, 2][:number]
    disk.close()
