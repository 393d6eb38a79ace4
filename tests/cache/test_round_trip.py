"""What is written is what is read, whatever its type, shape and order of writing."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from contracts.killing import tree
from contracts.small_cache import (
    SHARD_BYTES,
    Q,
    check_view,
    facts,
    fields,
    make_manifest,
    summarize,
    write,
    write_some,
)
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from bancache.cache import Manifest
from bancache.cache.chunks import encode_chunk
from bancache.cache.directory import Folders
from bancache.cache.info import describe
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import verify_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError, UsageError

EVERY_TYPE = (
    FieldSpec("q", "uint8", (10,), ("class",)),
    FieldSpec("steps", "int16", (10,), ("class",)),
    FieldSpec("half", "float16", (2, 3), ("part", "rank")),
    FieldSpec("shift", "float32", (), ()),
)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_the_order_of_writing_leaves_no_trace(tmp_path: Path, order: str) -> None:
    expected = tree(write(tmp_path / "plain.zarr"))
    arrange: Any = {
        "forwards": list,
        "backwards": lambda shards: shards[::-1],
        "shuffled": lambda shards: random.Random(0).sample(shards, len(shards)),
    }[order]
    assert tree(write(tmp_path / "other.zarr", order=arrange)) == expected
    assert sorted(expected) == [
        "manifest.json",
        *(f"q/c/{view_index}/{block}/0" for view_index in range(3) for block in range(3)),
        "q/zarr.json",
        *(f"shift/c/{view_index}/{block}" for view_index in range(3) for block in range(3)),
        "shift/zarr.json",
        "zarr.json",
    ]


@pytest.mark.parametrize("shard_bytes", [100, 10_000])
@pytest.mark.parametrize("samples", [1, 7, 23])
def test_every_type_and_shape_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int, shard_bytes: int
) -> None:
    monkeypatch.setattr(SHARD_BYTES, shard_bytes)
    manifest = make_manifest(samples=samples, num_views=2, fields=EVERY_TYPE)
    write(tmp_path / "a.zarr", manifest)
    for view_index in (0, 1):
        check_view(tmp_path / "a.zarr", view_index, manifest)


def test_one_number_in_one_view_of_one_sample_reads_back(tmp_path: Path) -> None:
    manifest = make_manifest(samples=1, num_views=1, fields=(FieldSpec("shift", "float32", (), ()),))
    check_view(write(tmp_path / "a.zarr", manifest), 0, manifest)


def test_bits_of_every_kind_of_number_survive(tmp_path: Path) -> None:
    """Not a number, infinities, a negative zero and the ends of every range come back bit for bit."""
    manifest = make_manifest(samples=6, num_views=1, fields=EVERY_TYPE)
    special = [np.nan, np.inf, -np.inf, -0.0, 65504.0, 6e-8]
    values: dict[str, NDArray[Any]] = {
        "q": np.tile(np.array([[0], [255], [1], [254], [128], [127]], np.uint8), 10),
        "steps": np.tile(np.array([[-32768], [32767], [-1], [0], [1], [256]], np.int16), 10),
        "half": np.tile(np.array(special, np.float16).reshape(6, 1, 1), (1, 2, 3)),
        "shift": np.array(special, np.float32),
    }
    with open_writer(tmp_path / "a.zarr", manifest) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        writer.write_shard(shard, values, facts(shard))
        writer.finish(summarize)
    found = open_cache(tmp_path / "a.zarr").read_view(0)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in values.items()
    }


def test_a_shard_equal_to_the_fill_value_is_written_like_any_other(tmp_path: Path) -> None:
    """Zarr would leave it out by default, and a missing file could then not be told from a lost one."""
    manifest = make_manifest(num_views=1)
    with open_writer(tmp_path / "a.zarr", manifest) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        writer.write_shard(shard, {n: v * 0 for n, v in fields(manifest, shard).items()}, facts(shard))
        writer.finish(summarize)
    assert (tmp_path / "a.zarr" / "q" / "c" / "0" / "0" / "0").is_file()
    assert (tmp_path / "a.zarr" / "shift" / "c" / "0" / "0").is_file()
    assert not open_cache(tmp_path / "a.zarr").read_view(0)["q"].any()


@pytest.mark.usefixtures("small_shards")
def test_an_open_cache_says_what_it_is(tmp_path: Path) -> None:
    cache = open_cache(write(tmp_path / "a.zarr"))
    assert cache.manifest == make_manifest()
    assert cache.summary == {"rows": 120, "third": 1 / 3}
    assert cache.bytes == sum(f.stat().st_size for f in cache.path.rglob("*") if f.is_file())
    assert len(cache.digest) == 64
    cache.require_dataset("d" * 64)
    with pytest.raises(MismatchError, match=r"'dddddddddddd'.*'ffffffff"):
        cache.require_dataset("f" * 64)


def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path: Path) -> None:
    one, same = write(tmp_path / "one.zarr"), write(tmp_path / "same.zarr")
    other = write(tmp_path / "other.zarr", make_manifest(samples=41))
    assert open_cache(one).digest == open_cache(same).digest != open_cache(other).digest


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((40, 10), np.float32), r"'q' .*float32\[40, 10\].*uint8\[40, 10\]"),
        (np.zeros((40, 10), np.int8), r"'q' .*\bint8\[40, 10\]"),
        (np.zeros((1, 10), np.uint8), r"'q' .*uint8\[1, 10\].*uint8\[40, 10\]"),
        (np.zeros((40, 9), np.uint8), r"'q' .*uint8\[40, 9\]"),
    ],
)
def test_arrays_that_would_be_cast_or_repeated_are_refused(
    tmp_path: Path, values: NDArray[Any], said: str
) -> None:
    manifest = make_manifest(fields=(Q,))
    with open_writer(tmp_path / "a.zarr", manifest) as writer:
        assert writer is not None
        with pytest.raises(UsageError, match=said):
            writer.write_shard(writer.pending()[0], {"q": values}, {})
        assert len(writer.pending()) == 3


@pytest.mark.usefixtures("small_shards")
def test_a_cache_cannot_be_finished_before_its_last_shard(tmp_path: Path) -> None:
    write_some(tmp_path / "a.zarr", range(8))
    with open_writer(tmp_path / "a.zarr", make_manifest()) as writer:
        assert writer is not None
        with pytest.raises(CacheDamagedError, match="1 shard"):
            writer.finish(summarize)
    with pytest.raises(CacheDamagedError, match="8 of 9 ") as caught:
        open_cache(tmp_path / "a.zarr")
    assert "`bancache dump`" in caught.value.hint


def too_many() -> Manifest:
    return make_manifest(samples=1, num_views=400_001, fields=(Q,))


def test_a_cache_of_too_many_files_is_not_begun(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"400,003.*400,000"),
        open_writer(tmp_path / "a.zarr", too_many()),
    ):
        pass
    assert not (tmp_path / "a.zarr").exists()


def test_a_chunk_is_as_zarr_writes_it(tmp_path: Path) -> None:
    """Byte for byte, at every level and at an array's edge, which Zarr pads too."""
    values = np.random.default_rng(0).integers(0, 9, (5, 4)).astype(np.int16)
    for level in (None, 1, 7):
        path = tmp_path / f"{level}.zarr"
        codecs: Any = (Crc32cCodec(),) if level is None else (ZstdCodec(level=level), Crc32cCodec())
        array = zarr.create_array(
            path, shape=(5, 4), chunks=(3, 4), dtype="int16", compressors=codecs, fill_value=0
        )
        array[:] = values
        for block in range(2):
            rows = values[3 * block : 3 * block + 3]
            assert encode_chunk(rows, 3, level) == (path / "c" / str(block) / "0").read_bytes()


def test_a_folder_that_another_process_made_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, flushed = Folders(tmp_path), 0

    def count(descriptor: int) -> None:
        nonlocal flushed
        flushed += 1

    monkeypatch.setattr(os, "fsync", count)
    (tmp_path / "q").mkdir()
    folders.make(tmp_path / "q" / "c")
    assert (tmp_path / "q" / "c").is_dir()
    assert flushed == 2  # the parents of both
    folders.make(tmp_path / "q" / "c")
    assert flushed == 2


def test_a_path_may_be_a_plain_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people type it; a relative one, too."""
    monkeypatch.chdir(tmp_path)
    with open_writer("a.zarr", make_manifest()) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(shard, fields(make_manifest(), shard), facts(shard))
        writer.finish(summarize)
    cache = open_cache("a.zarr")
    assert cache.path == Path("a.zarr")
    assert cache.read_view(0)["q"].shape == (40, 10)
    assert describe("a.zarr")["complete"]
    assert verify_cache("a.zarr") == []
    with open_repairer("a.zarr") as repairer:
        repairer.restore_descriptions()
