"""A store made to harm is refused within a second and little memory, whatever digests it brings along."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import pytest
import zarr.core.array  # noqa: F401  what is loaded late counts as memory
from contracts.small_cache import Q, check_slab, manifest, write

from bancache.cache.info import describe
from bancache.cache.reader import open_cache
from bancache.cache.sealed import FILES_LIMIT, MANIFEST_LIMIT, read_manifest, seal
from bancache.cache.store import digest_of, frame_bytes
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.fields import FieldSpec

pytestmark = pytest.mark.usefixtures("small_regions")
Stored = dict[str, Any]


def reseal(cache: Path, change: Callable[[Stored], object]) -> None:
    """Change a manifest and give it the digest that fits."""
    stored = json.loads((cache / "manifest.json").read_text())
    del stored["digest"]
    change(stored)
    (cache / "manifest.json").write_text(json.dumps(seal(stored)))


@contextlib.contextmanager
def cheaply(*, megabytes: int = 20) -> Iterator[None]:
    started = time.monotonic()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes << 20
    assert time.monotonic() - started < 2  # a second, on a machine that is not busy with something else


def check_refused(cache: Path, said: str = "") -> None:
    with cheaply(), pytest.raises((CacheDamagedError, MismatchError), match=said):
        open_cache(cache)
    with cheaply(), contextlib.suppress(CacheDamagedError, MismatchError):
        describe(cache)
    with cheaply(), pytest.raises((CacheDamagedError, MismatchError)):
        write(cache)


SIZES = [1 << 60, 0, -1, 1.5, "40", True, None, [40], 10**400]


@pytest.mark.parametrize("size", SIZES, ids=[str(size)[:20] for size in SIZES])
@pytest.mark.parametrize("name", ["samples", "slots", "classes"])
@pytest.mark.parametrize("complete", [True, False])
def test_sizes_that_no_cache_has(cache: Path, name: str, size: object, complete: bool) -> None:
    reseal(cache, lambda stored: (stored["promise"].update({name: size}), stored.update(complete=complete)))
    check_refused(cache, "the manifest makes no sense: there is no cache with .* samples")


@pytest.mark.parametrize("complete", [True, False])
def test_sizes_that_only_an_absurd_cache_has_build_no_lists(cache: Path, complete: bool) -> None:
    """2^78 entries are allowed by themselves; what is listed must be as much."""
    absurd = {"samples": (1 << 40) - 1, "slots": (1 << 39)}
    reseal(cache, lambda stored: (stored["promise"].update(absurd), stored.update(complete=complete)))
    check_refused(
        cache, "does not list the files of its own layout" if complete else r"incomplete: 0 of \d{20,}"
    )


FIELDS: list[object] = [
    [],
    {},
    None,
    5,
    "q",
    [None],
    ["q"],
    [{"name": "q"}],
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_arrays_that_are_none(cache: Path, fields: object) -> None:
    reseal(cache, _promise("fields", fields))
    check_refused(cache, "the manifest")


NAMES = [
    "",
    ".",
    "..",
    "../q",
    "/etc/passwd",
    "q/c",
    "q\\c",
    ".regions",
    "zarr.json",
    "manifest.json",
    "q\n",
    "q\0",
    "Q",
    "\u202eq",
    "q" * 32,
    5,
    None,
    ["q"],
    "shift",
]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_names_that_lead_out_of_the_store_or_onto_its_own_files(cache: Path, name: object) -> None:
    """The last one is the name of the other array."""
    reseal(cache, lambda stored: stored["promise"]["fields"][0].update(name=name))
    check_refused(cache, "the manifest")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"dtype": "O"},
        {"dtype": "i4,O"},
        {"dtype": "V1000000000000"},
        {"dtype": "<U9999999"},
        {"dtype": "datetime64[s]"},
        {"dtype": "bool"},
        {"dtype": 5},
        {"dtype": ["uint8"]},
        {"shape": [1 << 60]},
        {"shape": [1 << 39]},
        {"shape": [1 << 20, 1 << 20], "dimensions": ["a", "b"]},
        {"shape": [1, 1, 1, 1, 1], "dimensions": ["a", "b", "c", "d", "e"]},
        {"shape": [0]},
        {"shape": [-10]},
        {"shape": [True]},
        {"shape": [10.0]},
        {"shape": ["10"]},
        {"shape": "10"},
        {"shape": 10},
        {"shape": []},
        {"dimensions": []},
        {"dimensions": ["class", "class"]},
        {"dimensions": [5]},
        {"dimensions": ["../x"]},
    ],
    ids=str,
)
def test_types_and_shapes_that_no_array_has(cache: Path, change: dict[str, Any]) -> None:
    reseal(cache, lambda stored: stored["promise"]["fields"][0].update(change))
    check_refused(cache, "the manifest")


@pytest.mark.parametrize("where", ["manifest", "promise"])
@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None, [1], 2, 10**30], ids=str)
def test_formats_that_are_not_ours(cache: Path, where: str, version: object) -> None:
    reseal(
        cache,
        lambda stored: (stored if where == "manifest" else stored["promise"]).update(format_version=version),
    )
    newer = type(version) is int and version > 1
    with pytest.raises(MismatchError if newer else CacheDamagedError) as caught:
        open_cache(cache)
    assert str(caught.value) == (
        f"the cache has format {version}, this bancache reads up to 1"
        if newer
        else f"the manifest makes no sense: format {str(version)!r}"
    )


def test_a_newer_format_is_recognised_whatever_else_it_changed(cache: Path) -> None:
    (cache / "manifest.json").write_text('{"format_version": 3, "promise": [], "complete": "partly"}')
    with pytest.raises(MismatchError, match="has format 3, this bancache reads up to 1") as caught:
        open_cache(cache)
    assert caught.value.hint == "upgrade bancache"


def _rename(old: str, new: str) -> Callable[[Stored], object]:
    return lambda stored: stored["files"].update({new: stored["files"].pop(old)})


def _list(key: str, digest: object) -> Callable[[Stored], object]:
    return lambda stored: stored["files"].update({key: digest})


def _promise(name: str, value: object) -> Callable[[Stored], object]:
    return lambda stored: stored["promise"].update({name: value})


def _break(name: str) -> Callable[[Stored], object]:
    return lambda stored: stored["promise"].pop(name)


DIGESTS: list[object] = [
    None,
    5,
    [],
    [5],
    ["5", "0" * 64],
    [True, "0" * 64],
    [5.0, "0" * 64],
    [5, 5],
    [5, "0" * 64, 1],
    [0, "0" * 64],
    [-1, "0" * 64],
    [1 << 60, "0" * 64],
]
LISTS: dict[str, Callable[[Stored], object]] = {
    "one more": _list("q/c/3/0/0", [1, "0" * 64]),
    "one less": lambda stored: stored["files"].pop("q/c/0/0/0"),
    "no description": lambda stored: stored["files"].pop("q/zarr.json"),
    "outside": _rename("q/c/0/0/0", "../../etc/passwd"),
    "absolute": _rename("q/c/0/0/0", "/etc/passwd"),
    "roundabout": _rename("q/c/0/0/0", "q/c/0/../0/0/0"),
    "nothing": lambda stored: stored.pop("files"),
    "null": lambda stored: stored.update(files=None),
    "a list": lambda stored: stored.update(files=list(stored["files"])),
    **{f"a digest {value}": _list("q/c/0/0/0", value) for value in DIGESTS},
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_that_are_not_of_the_stores_own_files(cache: Path, kind: str) -> None:
    reseal(cache, LISTS[kind])
    with cheaply(), pytest.raises(CacheDamagedError, match="does not list the files of its own layout"):
        open_cache(cache)


NO_OBJECTS: list[object] = [None, [], "x", 5]
REST: dict[str, Callable[[Stored], object]] = {
    **{f"no {name}": _break(name) for name in manifest().to_dict() if name != "format_version"},
    **{
        f"{name} of {value}": _promise(name, value)
        for name in ("dataset", "teacher", "encoding")
        for value in NO_OBJECTS
    },
    "no fingerprint": lambda stored: stored["promise"]["dataset"].pop("fingerprint"),
    "a number for a fingerprint": lambda stored: stored["promise"]["teacher"].update(fingerprint=5),
    "no promise": lambda stored: stored.pop("promise"),
    "a list for a promise": lambda stored: stored.update(promise=[]),
    "a complete of 1": lambda stored: stored.update(complete=1),
    "a complete of text": lambda stored: stored.update(complete="no"),
    "a summary of text": lambda stored: stored.update(summary="good"),
}


@pytest.mark.parametrize("kind", REST)
def test_anything_else_that_a_writer_does_not_leave(cache: Path, kind: str) -> None:
    reseal(cache, REST[kind])
    check_refused(cache, r"manifest")


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
    check_refused(cache, "manifest.json (is not|was changed)")


def test_a_manifest_of_a_terabyte_is_not_read(cache: Path) -> None:
    with (cache / "manifest.json").open("r+b") as stream:
        stream.truncate(1 << 40)
    check_refused(cache, "manifest.json is 1,099,511,627,776 bytes; at most 67,108,864 make sense")


@pytest.mark.parametrize("unit", [b"[],", b'"",', b"0,", b"{},"])
def test_a_manifest_of_many_small_values_is_not_parsed(
    tmp_path_factory: pytest.TempPathFactory, unit: bytes
) -> None:
    """As large as a manifest may be, it would parse into gigabytes."""
    path = tmp_path_factory.mktemp("dense")
    content = b"[" + unit * ((MANIFEST_LIMIT >> 2) // len(unit) - 2) + b"0]"
    (path / "manifest.json").write_bytes(content)
    with cheaply(megabytes=20), pytest.raises(CacheDamagedError, match="is not a cache's manifest"):
        open_cache(path)
    (path / "manifest.json").unlink()


def test_a_manifest_of_as_many_files_as_allowed_is_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With the longest names there can be, a two-hundredth of it; the limits of bytes and values leave room."""
    path = tmp_path_factory.mktemp("long")
    count = FILES_LIMIT // 200
    files = {f"{'q' * 31}/c/{100_000 + i}/100000/0/0/0/0": [67_000_000, "0" * 64] for i in range(count)}
    body = {"format_version": 1, "promise": {}, "complete": True, "files": files}
    text = json.dumps(seal(body), indent=1, sort_keys=True)
    (path / "manifest.json").write_text(text)
    assert read_manifest(path)["files"] == files
    assert len(text) * 200 < MANIFEST_LIMIT
    values = sum(text.count(mark) for mark in ",[{")
    assert values < len(text) / 32


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b"{}", b"x" * 1_000_000])
def test_a_description_that_somebody_vouches_for_is_still_not_read(cache: Path, content: bytes) -> None:
    """Layout and codecs follow from the promise: Zarr never sees what lies on disk."""
    for key in ("zarr.json", "q/zarr.json", "shift/zarr.json"):
        (cache / key).write_bytes(content)
        reseal(cache, _list(key, list(digest_of(content))))
    with cheaply():
        check_slab(cache, 0)


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
def test_an_edited_description_is_refused_before_zarr_reads_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    text = (cache / "q" / "zarr.json").read_text()
    assert old in text
    (cache / "q" / "zarr.json").write_text(text.replace(old, new))
    monkeypatch.setattr("zarr.open_array", lambda *args, **kwargs: pytest.fail("Zarr was asked"))
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json is damaged"):
        open_cache(cache).slab(0)


def _frame(announced: int, width: int) -> bytes:
    """A Zstandard frame's beginning, with a size in a field of some bytes."""
    flags = {0: 0x00, 1: 0x20, 2: 0x40, 4: 0x80, 8: 0xC0}[width]
    window = b"" if width == 1 else b"\x88"
    size = announced - 256 if width == 2 else announced
    return b"\x28\xb5\x2f\xfd" + bytes([flags]) + window + size.to_bytes(width, "little") + bytes(30)


BOMBS = {
    "three gigabytes": (_frame(3 << 30, 4), "it would unfold to 3221225472 bytes instead of 140"),
    "2^60 bytes": (_frame(1 << 60, 8), "it would unfold to 1152921504606846976 bytes instead of 140"),
    "one byte more": (_frame(141, 1), "it would unfold to 141 bytes instead of 140"),
    "no size": (_frame(0, 0), "it would unfold to unknown bytes instead of 140"),
    "a frame to skip": (b"\x50\x2a\x4d\x18" + bytes(30), "it would unfold to unknown bytes"),
    "no frame": (b"PK\x03\x04" + bytes(30), "it would unfold to unknown bytes"),
    "three bytes": (b"\x28\xb5\x2f", "it would unfold to unknown bytes"),
    "a frame that breaks off": (_frame(140, 1)[:5], "it would unfold to unknown bytes"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_unfolds_to_another_size_is_not_unfolded(cache: Path, kind: str) -> None:
    content, said = BOMBS[kind]
    (cache / "q" / "c" / "0" / "1" / "0").write_bytes(content)
    reseal(cache, _list("q/c/0/1/0", list(digest_of(content))))
    with (
        cheaply(),
        pytest.raises(CacheDamagedError, match=rf"region 1 \(slot 0, samples 14 to 27\) is damaged: {said}"),
    ):
        open_cache(cache).slab(0)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_791, 65_792, 1 << 20])
def test_the_announced_size_of_a_frame_is_read_in_each_of_its_widths(size: int) -> None:
    assert frame_bytes(numcodecs.Zstd(level=1).encode(bytes(size))[:18]) == size
    for width in (2, 4, 8):
        if size >= 256 and size < 1 << 8 * width:
            assert frame_bytes(_frame(size, width)) == size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "there is no cache with 0 samples, 3 views, 10 classes"),
        ({"slots": True}, "there is no cache with 40 samples, True views, 10 classes"),
        ({"fields": ()}, "there is no cache with arrays called \\[\\]"),
        ({"fields": (Q, Q)}, "there is no cache with arrays called \\['q', 'q'\\]"),
        ({"fields": (FieldSpec("q", ">f4", (), ()),)}, "there is no cache with array FieldSpec"),
        ({"teacher": {}}, "there is no cache with a data set or a teacher that has no fingerprint"),
    ],
)
def test_a_promise_that_makes_no_sense_cannot_be_made(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        manifest(**change)
