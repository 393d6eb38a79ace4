"""A cache made to harm is refused within a second and little memory, whatever digests it brings along."""

from __future__ import annotations

import json
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np
import pytest
from contracts.hostile import cheaply, check_refused, list_as, reseal
from contracts.small_cache import check_view, make_manifest, write, write_some

from bancache.cache.chunks import frame_bytes
from bancache.cache.digests import digest_of
from bancache.cache.manifest_io import FILES_LIMIT, MANIFEST_LIMIT, read_manifest, sign
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError

pytestmark = pytest.mark.usefixtures("small_shards")

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "a number": b"1" * 5000,
    "a number without end": b"1" * 100_000,
    "not JSON": b"\x80\x04\x95pickle",
    "deep lists": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 1_000_000,
    "deep, but within the parser's reach": b'{"format_version": 1, "complete": true, "promise": '
    + b"[" * 900
    + b"]" * 900
    + b"}",
    "not a number": b'{"format_version": 1, "complete": true, "promise": {"samples": NaN}, "digest": "0"}',
    "infinity": b'{"format_version": 1, "complete": true, "promise": {"samples": 1e999}, "digest": "0"}',
    "half a letter": b'{"format_version": 1, "complete": true, "promise": "\\ud800", "digest": "0"}',
    "other letters": '{"format_version": 1, "complete": true, "promise": "é"}'.encode(),
    "the wrong letters": b'{"format_version": 1, "complete": true, "promise": "\xff"}',
    "no digest": b'{"format_version": 1, "complete": true, "promise": {}}',
    "a number for a digest": b'{"format_version": 1, "complete": true, "promise": {}, "digest": 5}',
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_that_are_no_manifest(cache: Path, kind: str) -> None:
    (cache / "manifest.json").write_bytes(TEXTS[kind])
    check_refused(cache, r"manifest\.json")


def test_a_manifest_of_a_terabyte_is_not_read(cache: Path) -> None:
    with (cache / "manifest.json").open("r+b") as stream:
        stream.truncate(1 << 40)
    check_refused(cache, r"manifest\.json .*1,099,511,627,776.*67,108,864")


@pytest.mark.parametrize("unit", [b"[],", b'"",', b"0,", b"{},"])
def test_a_manifest_of_many_small_values_is_not_parsed(
    tmp_path_factory: pytest.TempPathFactory, unit: bytes
) -> None:
    """As large as a manifest may be, it would parse into gigabytes."""
    path = tmp_path_factory.mktemp("dense")
    content = b"[" + unit * ((MANIFEST_LIMIT >> 2) // len(unit) - 2) + b"0]"
    (path / "manifest.json").write_bytes(content)
    with cheaply(megabytes=20), pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        open_cache(path)
    (path / "manifest.json").unlink()


def test_a_manifest_of_as_many_files_as_allowed_is_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With the longest names there can be, a two-hundredth of it; the limits of bytes and values leave room."""
    path = tmp_path_factory.mktemp("long")
    count = FILES_LIMIT // 200
    files = {f"{'q' * 31}/c/{100_000 + i}/100000/0/0/0/0": [67_000_000, "0" * 64] for i in range(count)}
    promise = make_manifest().to_dict()
    body = {"format_version": 1, "promise": promise, "complete": True, "files": files}
    text = json.dumps(sign(body), indent=1, sort_keys=True)
    (path / "manifest.json").write_text(text)
    assert read_manifest(path)["files"] == files
    assert len(text) * 200 < MANIFEST_LIMIT
    values = sum(text.count(mark) for mark in ",[{")
    assert values < len(text) / 32


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b"{}", b"x" * 1_000_000])
def test_a_zarr_json_whose_digest_holds_is_still_not_read(cache: Path, content: bytes) -> None:
    """Layout and codecs follow from the manifest: Zarr never reads a file of the cache."""
    for key in ("zarr.json", "q/zarr.json", "shift/zarr.json"):
        (cache / key).write_bytes(content)
        reseal(cache, list_as(key, list(digest_of(content))))
    with cheaply():
        check_view(cache, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name": "zstd"', '"name": "evil"'),
        ('"name": "crc32c"', '"name": "pickle"'),
        ('"zarr_format": 3', '"zarr_format": 4'),
        ('"data_type": "uint8"', '"data_type": "int8"'),
        ("40,", "41,"),
        ("40,", f"{1 << 60},"),
        ('"storage_transformers": []', '"storage_transformers": [{"name": "evil"}]'),
    ],
)
def test_an_edited_zarr_json_is_refused_before_zarr_reads_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    text = (cache / "q" / "zarr.json").read_text()
    assert old in text
    (cache / "q" / "zarr.json").write_text(text.replace(old, new))
    monkeypatch.setattr("zarr.open_array", lambda *args, **kwargs: pytest.fail("Zarr was asked"))
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json"):
        open_cache(cache).read_view(0)


def _frame(announced: int, width: int) -> bytes:
    """A Zstandard frame's beginning, with a size in a field of some bytes."""
    flags = {0: 0x00, 1: 0x20, 2: 0x40, 4: 0x80, 8: 0xC0}[width]
    window = b"" if width == 1 else b"\x88"
    size = announced - 256 if width == 2 else announced
    return b"\x28\xb5\x2f\xfd" + bytes([flags]) + window + size.to_bytes(width, "little") + bytes(30)


def _checked(frame: bytes) -> bytes:
    return frame + int(google_crc32c.value(frame)).to_bytes(4, "little")


_WHOLE = bytes(numcodecs.Zstd(level=1).encode(bytes(140)))
BOMBS = {
    "three gigabytes": (_frame(3 << 30, 4), " 3221225472 .* 140"),
    "2^60 bytes": (_frame(1 << 60, 8), " 1152921504606846976 .* 140"),
    "one byte more": (_frame(141, 1), " 141 .* 140"),
    "no size": (_frame(0, 0), " 140"),
    "a frame to skip": (b"\x50\x2a\x4d\x18" + bytes(30), " 140"),
    "no frame": (b"PK\x03\x04" + bytes(30), " 140"),
    "three bytes": (b"\x28\xb5\x2f", " 140"),
    "a frame that breaks off": (_frame(140, 1)[:5], " 140"),
    "nothing behind its size": (_checked(_frame(140, 1)), ""),
    "a second frame": (_checked(_WHOLE + _WHOLE), ""),
    "another checksum": (_WHOLE + bytes(4), "CRC-32C"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_unfolds_to_another_size_is_not_unfolded(cache: Path, kind: str) -> None:
    _check_bomb(cache, kind, view_index=0, asked=0)


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize(("view_index", "asked"), [(0, 0), (0, 2), (2, 2)])
def test_a_chunk_of_a_compact_cache_that_unfolds_to_another_size_is_not_unfolded(
    tmp_path: Path, kind: str, view_index: int, asked: int
) -> None:
    """Neither the one that is read nor the one that it is relative to."""
    _check_bomb(
        write(tmp_path / "a.zarr", make_manifest(profile="compact")), kind, view_index=view_index, asked=asked
    )


def _check_bomb(cache: Path, kind: str, *, view_index: int, asked: int) -> None:
    content, said = BOMBS[kind]
    key = f"q/c/{view_index}/1/0"
    (cache / key).write_bytes(content)
    reseal(cache, list_as(key, list(digest_of(content))))
    named = rf"shard {3 * view_index + 1} \(view {view_index}, samples 14 to 27\).*{said}"
    with cheaply(), pytest.raises(CacheDamagedError, match=named):
        open_cache(cache).read_view(asked)


def test_an_unfinished_compact_cache_does_not_unfold_a_bomb_when_it_is_gone_on_with(tmp_path: Path) -> None:
    """A true record lists a file that is no chunk; the next shard would be written relative to it."""
    manifest, key = make_manifest(profile="compact"), "q/c/0/0/0"
    path = write_some(tmp_path / "a.zarr", [0], manifest)
    (path / key).write_bytes(BOMBS["three gigabytes"][0])
    file = path / ".regions" / "000000.json"
    record = json.loads(file.read_text())
    del record["digest"]
    record["files"][key] = list(digest_of((path / key).read_bytes()))
    file.write_text(json.dumps(sign(record)))
    with (
        cheaply(),
        pytest.raises(CacheDamagedError, match=r"shard 0 .* 3221225472 "),
    ):
        write_some(path, [3], manifest)


def test_numbers_that_no_writer_folded_unfold_to_other_numbers_and_to_nothing_else(tmp_path: Path) -> None:
    """The order of the classes is never read from a file, so there is none that could lead anywhere."""
    manifest = make_manifest(profile="compact")
    path = write(tmp_path / "a.zarr", manifest)
    for view_index in range(3):
        content = numcodecs.Zstd(level=1).encode(b"\xff" * 140)
        content += int.to_bytes(google_crc32c.value(content), 4, "little")
        (path / f"q/c/{view_index}/1/0").write_bytes(content)
        reseal(path, list_as(f"q/c/{view_index}/1/0", list(digest_of(content))))
    with cheaply():
        encoded = open_cache(path).read_view(2)
    assert encoded["q"].shape == (40, 10)
    assert encoded["q"].dtype == np.uint8
    # 255 in view 0 counts as 0 from the top; more than twice that stands for itself: 255 below the top.
    assert (encoded["q"][14:28] == 0).all()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_791, 65_792, 1 << 20])
def test_the_announced_size_of_a_frame_is_read_in_each_of_its_widths(size: int) -> None:
    assert frame_bytes(numcodecs.Zstd(level=1).encode(bytes(size))[:18]) == size
    for width in (2, 4, 8):
        if size >= 256 and size < 1 << 8 * width:
            assert frame_bytes(_frame(size, width)) == size
