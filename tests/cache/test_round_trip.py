"""What is written is what is read, whatever its type, shape and order of writing."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.killing import tree
from contracts.small_cache import (
    SHARD_BYTES,
    Q,
    check_view,
    facts,
    fields,
    manifest,
    summarize,
    write,
    write_some,
)
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from bancache.cache import Manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.store import DurableStore
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
    promise = manifest(samples=samples, num_views=2, fields=EVERY_TYPE)
    write(tmp_path / "a.zarr", promise)
    for view_index in (0, 1):
        check_view(tmp_path / "a.zarr", view_index, promise)


def test_one_number_in_one_view_of_one_sample_reads_back(tmp_path: Path) -> None:
    promise = manifest(samples=1, num_views=1, fields=(FieldSpec("shift", "float32", (), ()),))
    check_view(write(tmp_path / "a.zarr", promise), 0, promise)


def test_bits_of_every_kind_of_number_survive(tmp_path: Path) -> None:
    """Not a number, infinities, a negative zero and the ends of every range come back bit for bit."""
    promise = manifest(samples=6, num_views=1, fields=EVERY_TYPE)
    special = [np.nan, np.inf, -np.inf, -0.0, 65504.0, 6e-8]
    values: dict[str, NDArray[Any]] = {
        "q": np.tile(np.array([[0], [255], [1], [254], [128], [127]], np.uint8), 10),
        "steps": np.tile(np.array([[-32768], [32767], [-1], [0], [1], [256]], np.int16), 10),
        "half": np.tile(np.array(special, np.float16).reshape(6, 1, 1), (1, 2, 3)),
        "shift": np.array(special, np.float32),
    }
    with open_writer(tmp_path / "a.zarr", promise) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        writer.write_shard(shard, values, facts(shard))
        writer.finish(summarize)
    found = open_cache(tmp_path / "a.zarr").read_view(0)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in values.items()
    }


def test_a_shard_equal_to_the_fill_value_is_written_like_any_other(tmp_path: Path) -> None:
    """Zarr would leave it out, and what is not there could not be told from what was lost."""
    promise = manifest(num_views=1)
    with open_writer(tmp_path / "a.zarr", promise) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        writer.write_shard(shard, {n: v * 0 for n, v in fields(promise, shard).items()}, facts(shard))
        writer.finish(summarize)
    assert (tmp_path / "a.zarr" / "q" / "c" / "0" / "0" / "0").is_file()
    assert (tmp_path / "a.zarr" / "shift" / "c" / "0" / "0").is_file()
    assert not open_cache(tmp_path / "a.zarr").read_view(0)["q"].any()


@pytest.mark.usefixtures("small_shards")
def test_an_open_cache_says_what_it_is(tmp_path: Path) -> None:
    cache = open_cache(write(tmp_path / "a.zarr"))
    assert cache.manifest == manifest()
    assert cache.summary == {"rows": 120, "third": 1 / 3}
    assert cache.bytes == sum(f.stat().st_size for f in cache.path.rglob("*") if f.is_file())
    assert len(cache.digest) == 64
    cache.require_dataset("d" * 64)
    with pytest.raises(MismatchError, match="data set: made with 'dddddddddddd', but this run has 'ffffffff"):
        cache.require_dataset("f" * 64)


def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path: Path) -> None:
    one, same = write(tmp_path / "one.zarr"), write(tmp_path / "same.zarr")
    other = write(tmp_path / "other.zarr", manifest(samples=41))
    assert open_cache(one).digest == open_cache(same).digest != open_cache(other).digest


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((40, 10), np.float32), r"'q' is float32\[40, 10\], the cache keeps uint8\[40, 10\]"),
        (np.zeros((40, 10), np.int8), r"'q' is int8\[40, 10\]"),
        (np.zeros((1, 10), np.uint8), r"'q' is uint8\[1, 10\], the cache keeps uint8\[40, 10\]"),
        (np.zeros((40, 9), np.uint8), r"'q' is uint8\[40, 9\]"),
    ],
)
def test_arrays_that_would_be_cast_or_repeated_are_refused(
    tmp_path: Path, values: NDArray[Any], said: str
) -> None:
    promise = manifest(fields=(Q,))
    with open_writer(tmp_path / "a.zarr", promise) as writer:
        assert writer is not None
        with pytest.raises(UsageError, match=said):
            writer.write_shard(writer.pending()[0], {"q": values}, {})
        assert len(writer.pending()) == 3


@pytest.mark.usefixtures("small_shards")
def test_a_cache_cannot_be_finished_before_its_last_shard(tmp_path: Path) -> None:
    write_some(tmp_path / "a.zarr", range(8))
    with open_writer(tmp_path / "a.zarr", manifest()) as writer:
        assert writer is not None
        with pytest.raises(CacheDamagedError, match="1 shards are still missing"):
            writer.finish(summarize)
    with pytest.raises(CacheDamagedError, match="is incomplete: 8 of 9 shards") as caught:
        open_cache(tmp_path / "a.zarr")
    assert caught.value.hint.startswith("run the `bancache dump` that began it again")


def too_many() -> Manifest:
    return manifest(samples=1, num_views=400_001, fields=(Q,))


def test_a_cache_whose_manifest_nobody_would_read_is_not_begun(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="would have 400,003 files; at most 400,000 fit its manifest"),
        open_writer(tmp_path / "a.zarr", too_many()),
    ):
        pass
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("way", ["set", "set_sync"])
def test_zarr_has_one_way_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Flushed, renamed, its folders flushed, its digest known, by whichever method Zarr's version writes."""
    store, flushed = DurableStore(tmp_path), 0

    def count(descriptor: int) -> None:
        nonlocal flushed
        flushed += 1

    monkeypatch.setattr(os, "fsync", count)
    value = default_buffer_prototype().buffer.from_bytes(b"abc")
    if way == "set":
        asyncio.run(store.set("q/c/0", value))
    else:
        store.set_sync("q/c/0", value)
    assert (tmp_path / "q" / "c" / "0").read_bytes() == b"abc"
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.digests == {"q/c/0": (3, digest)}
    assert flushed == 4  # two new folders, the file, its folder
