"""Packs that anybody may have written: whatever they claim is refused at once, and without memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.photographs import write_photographs

from bancache.errors import BancacheError, DataError, OutOfMemoryError
from bancache.sources import open_source
from bancache.sources.pack import open_file
from bancache.sources.pack_format import MAGIC, PROLOGUE
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A pack of each kind."""
    root = tmp_path_factory.mktemp("packs")
    write_photographs(root / "photos", train=9, test=6)
    for kind in ("encoded", "pixels"):
        rest: dict[str, Any] = {"progress": Silent(), "interrupt": Interrupt()}
        pack(f"folder:{root / 'photos'}", root / kind, Shape(kind), **rest)
    return {kind: (root / kind).read_bytes() for kind in ("encoded", "pixels")}


@pytest.fixture
def out(made: dict[str, bytes], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A pack that a test may change; of pixels unless it asks for another kind."""
    (tmp_path / "d.pack").write_bytes(made[getattr(request, "param", "pixels")])
    return tmp_path / "d.pack"


def forge(pack: Path, *, header: dict[str, Any] | None = None, columns: dict[str, Any] | None = None) -> Path:
    """Rewrite a pack's header and arrays of the training split, with sha256 that agree."""
    content = pack.read_bytes()
    _, at, _, _ = PROLOGUE.unpack_from(content)
    about, body = json.loads(content[at:]), content[:at]
    train = about["splits"]["train"]
    for name, values in (columns or {}).items():
        new = values if isinstance(values, bytes) else values.tobytes()
        where = train["columns"][name]
        old = body[where["at"] : where["at"] + where["bytes"]]
        assert len(new) == len(old)
        body = body[: where["at"]] + new + body[where["at"] + len(new) :]
        where["sha256"] = hashlib.sha256(new).hexdigest()
    for path, value in (header or {}).items():
        place, *names = about, *path.split(".")
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
    text = json.dumps(about).encode()
    start = PROLOGUE.pack(MAGIC, len(body), len(text), hashlib.sha256(text).digest())
    pack.write_bytes(start + body[len(start) :] + text)
    return pack


HOSTILE_HEADERS = [
    {"splits.train.samples": 1 << 60},
    {"splits.train.samples": 1 << 39},
    {"splits.train.samples": 0},
    {"splits.train.samples": -3},
    {"splits.train.samples": 3.5},
    {"splits.train.columns.offsets.at": 1 << 50},
    {"splits.train.columns.offsets.at": -8},
    {"splits.train.columns.heights.bytes": 1 << 50},
    {"splits.train.columns": {}},
    {"splits.train.channels": 4},
    {"splits.train.channels": 1},
    {"splits.train.mean": [float("nan")] * 3},
    {"splits.train.mean": [1.0]},
    {"splits.train.std": [0.0, 1.0, 1.0]},
    {"splits.train.fingerprint": "x"},
    {"splits.test": None},
    {"splits": []},
    {"kind": "other"},
    {"classes": []},
    {"classes": ["checks"]},
    {"classes": ["checks", "checks", "stripes"]},
    {"white": 7},
    {"source": "folder:\0"},
]


@pytest.mark.parametrize("header", HOSTILE_HEADERS, ids=str)
def test_a_header_that_makes_no_sense_is_refused(out: Path, header: dict[str, Any]) -> None:
    with pytest.raises(BancacheError):
        open_source(f"pack:{forge(out, header=header)}", "train")


HOSTILE_COLUMNS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "beyond the file": lambda index: {"offsets": index.offsets + (1 << 40)},
    "negative": lambda index: {"offsets": index.offsets - 1000},
    "overlapping": lambda index: {"offsets": np.concatenate([index.offsets[:3], index.offsets[1:-2]])},
    "around the end of int64": lambda index: {"offsets": index.offsets + np.int64((1 << 63) - 1000)},
    "of no pixels": lambda index: {"heights": index.heights * 0},
    "of negative pixels": lambda index: {"heights": -index.heights, "widths": -index.widths},
    "of 2^62 pixels": lambda index: {
        "heights": np.full_like(index.heights, 2**31 - 1),
        "widths": np.full_like(index.widths, 2**31 - 1),
    },
    "of a class too many": lambda index: {"labels": (index.labels + 9).astype("<i4")},
    "of a negative class": lambda index: {"labels": (index.labels - 9).astype("<i4")},
}


@pytest.mark.parametrize("out", ["encoded", "pixels"], indirect=True)
@pytest.mark.parametrize("what", HOSTILE_COLUMNS)
def test_an_index_that_makes_no_sense_is_refused(out: Path, what: str) -> None:
    forge(out, columns=HOSTILE_COLUMNS[what](open_file(out).index("train")))
    with pytest.raises(BancacheError) as caught:
        open_source(f"pack:{out}", "train")
    if "class" in what:
        assert ("label -9" if "negative" in what else "label 9 ") in str(caught.value)


@pytest.mark.parametrize("out", ["encoded"], indirect=True)
def test_a_picture_larger_than_memory_is_refused_before_it_is_read(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.system.memory._NOT_WORTH_ASKING", 0)
    monkeypatch.setattr("bancache.system.memory.free_on_host", lambda: 1500)
    with pytest.raises(OutOfMemoryError, match="largest picture"):
        open_file(out).index("train")


def test_paths_that_make_no_sense_are_refused_when_they_are_read(out: Path) -> None:
    ends = np.array([99, -5, 1 << 40, 3, 4, 5, 6, 7, 8], "<i8")
    paths = open_source(f"pack:{forge(out, columns={'path_ends': ends})}", "train").paths
    assert paths is not None
    with pytest.raises(DataError):
        paths[0]


def test_a_file_that_is_cut_anywhere_is_refused(out: Path) -> None:
    content = out.read_bytes()
    index = open_file(out).header.splits.test.columns
    for length in (0, 15, 16, 63, 64, 1000, index["heights"].at, len(content) - 1):
        out.write_bytes(content[:length])
        with pytest.raises(DataError):
            open_source(f"pack:{out}", "train")
