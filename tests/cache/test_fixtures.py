"""A store of every format version that was ever written is kept here, and read for ever.

They were written by ``make`` below with bancache of the day, zarr 3.1.6 and numcodecs 0.16.6.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from bancache.cache import Layout, Manifest, Shard
from bancache.cache.info import describe
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.verify import verify_cache
from bancache.encodings.fields import FieldSpec

FIXTURES = Path(__file__).parent / "fixtures"
V1 = FIXTURES / "v1-store"
# Two blocks of 100,000 samples in each of two views: patterns, so that they compress to a few kilobytes.
SAMPLES, NUM_VIEWS, CLASSES = 200_000, 2, 8
MANIFEST = Manifest(
    samples=SAMPLES,
    num_views=NUM_VIEWS,
    classes=CLASSES,
    fields=(FieldSpec("q", "uint8", (CLASSES,), ("class",)), FieldSpec("step", "float32", (), ())),
    encoding={"name": "int8", "id": "int8-1"},
    view_space={"id": "lattice-1", "pad": 4, "mode": "reflect", "flip": True, "seed": 7},
    pixels={"normalisation": {"mean": [125.3], "std": [51.6]}, "golden": "0" * 64},
    dataset={"spec": {"source": "fixture"}, "fingerprint": "1" * 64, "classes": list("abcdefgh")},
    teacher={"fingerprint": "2" * 64, "architecture": {"name": "fixture"}, "generation": 0},
    compute={"batch_size": 100, "precision": "float32"},
    created_with={"bancache": "0.1.0"},
)
# Not compressed, it has to be small: seven blocks' worth of the pattern.
LATER = {
    "v2-compact": replace(MANIFEST, profile="compact"),
    "v2-mmap": replace(MANIFEST, profile="mmap", samples=112),
    "v3-store": replace(MANIFEST, samples=112, shard_samples=40),
}
KNOWN = {
    "v2-compact": ("26091e8d835b7c949e75f33678ecfb6ce8c984cd25293547df57e10d0fbbd2da", 4, 8927),
    "v2-mmap": ("ec1646bb21b3d3796ef0885f43914afa6e641674084acbd33f591668a6b593fb", 2, 9527),
    "v3-store": ("f4e93ea0863200b45dad69d0ee44df21cf1987a5c6b3def395b50985b495b981", 6, 9667),
}


def expected(view_index: int, start: int = 0, stop: int = SAMPLES) -> dict[str, NDArray[Any]]:
    sample = np.arange(start, stop)
    steps = sample[:, None] % 16 * 2 + np.arange(CLASSES) * 31 + view_index
    return {"q": steps.astype(np.uint8), "step": (1 / (1 + sample % 16 + view_index)).astype(np.float32)}


def make(path: Path, manifest: Manifest = MANIFEST) -> None:
    """Write a fixture as the present version would."""
    with open_writer(path, manifest) as writer:
        assert writer is not None
        for shard in writer.pending():
            writer.write_shard(
                shard, expected(shard.view_index, shard.start, shard.stop), {"slot": shard.view_index}
            )
        writer.finish(lambda facts: {"slots": [fact["slot"] for fact in facts]})


def test_a_store_of_format_1_is_read_for_ever() -> None:
    cache = open_cache(V1)
    assert cache.manifest == MANIFEST
    assert cache.summary == {"slots": [0, 0, 1, 1]}
    assert cache.digest == "9b4d386a6349f6754aa9444fa332d7e6900e50f2dcc8a117dfdc82398b581f5b"
    for view_index in range(NUM_VIEWS):
        encoded = cache.read_view(view_index)
        assert {name: array.dtype.str for name, array in encoded.items()} == {"q": "|u1", "step": "<f4"}
        for name, array in expected(view_index).items():
            np.testing.assert_array_equal(encoded[name], array)
    assert cache.read_view(1)["q"][123_451].tolist() == [23, 54, 85, 116, 147, 178, 209, 240]
    assert hashlib.sha256(cache.read_view(1)["step"].tobytes()).hexdigest()[:16] == "33c401462de8412d"


def test_a_store_of_format_1_is_whole_and_described() -> None:
    assert verify_cache(V1) == []
    described = describe(V1)
    assert (described["complete"], described["shards"], described["bytes"]) == (True, 4, 9165)


def test_a_store_of_format_1_is_read_by_plain_zarr() -> None:
    group: Any = zarr.open_group(V1, mode="r")
    np.testing.assert_array_equal(group["q"][1, 99_990:100_010], expected(1, 99_990, 100_010)["q"])
    np.testing.assert_array_equal(group["step"][0, -5:], expected(0, SAMPLES - 5)["step"])


def test_what_is_written_today_is_the_same_but_for_compression(tmp_path: Path) -> None:
    """Names, shards and values; another version of a compressor may find other bytes for them."""
    make(tmp_path / "a.zarr")
    today, then = open_cache(tmp_path / "a.zarr"), open_cache(V1)
    assert sorted(today.digests) == sorted(then.digests)
    assert today.manifest == then.manifest
    for name, array in today.read_view(0).items():
        np.testing.assert_array_equal(array, then.read_view(0)[name])


@pytest.mark.parametrize(
    ("index", "keys"),
    [(0, ["q/c/0/0/0", "step/c/0/0"]), (1, ["q/c/0/1/0", "step/c/0/1"]), (3, ["q/c/1/1/0", "step/c/1/1"])],
)
def test_where_a_store_of_format_1_has_its_shards(index: int, keys: list[str]) -> None:
    layout = Layout(MANIFEST)
    assert layout.chunk_keys(layout.shard(index)) == keys
    assert layout.shard(index) == Shard(
        index, index // 2, index % 2, index % 2 * 100_000, (index % 2 + 1) * 100_000
    )


@pytest.mark.parametrize("name", LATER)
def test_a_store_of_a_later_format_is_read_for_ever(name: str) -> None:
    cache, manifest, (digest, shards, size) = open_cache(FIXTURES / name), LATER[name], KNOWN[name]
    assert cache.manifest == manifest
    assert cache.digest == digest
    assert verify_cache(FIXTURES / name) == []
    described = describe(FIXTURES / name)
    assert (described["format_version"], described["profile"]) == (int(name[1]), manifest.profile)
    assert (described["shards"], described["bytes"]) == (shards, size)
    for view_index in (1, 0):
        encoded = cache.read_view(view_index)
        for field, array in expected(view_index, 0, manifest.samples).items():
            np.testing.assert_array_equal(encoded[field], array)
    # Worked by hand: view 1, class 5 of sample 111 is 111 mod 16 · 2 + 5 · 31 + 1.
    assert cache.read_view(1)["q"][111, 5] == 186


@pytest.mark.parametrize("name", LATER)
def test_what_is_written_in_a_later_format_today_is_the_same_but_for_compression(
    tmp_path: Path, name: str
) -> None:
    make(tmp_path / "a.zarr", LATER[name])
    today, then = open_cache(tmp_path / "a.zarr"), open_cache(FIXTURES / name)
    assert sorted(today.digests) == sorted(then.digests)
    groups: list[Any] = [zarr.open_group(path, mode="r") for path in (tmp_path / "a.zarr", FIXTURES / name)]
    for field in ("q", "step"):
        np.testing.assert_array_equal(groups[0][field][:], groups[1][field][:])
    if name == "v2-mmap":
        chunks = {key for key in today.digests if "/c/" in key}
        assert {key: today.digests[key] for key in chunks} == {key: then.digests[key] for key in chunks}


def test_a_store_of_format_3_is_read_by_plain_zarr() -> None:
    group: Any = zarr.open_group(FIXTURES / "v3-store", mode="r")
    assert (group["q"].shape, group["q"].chunks) == ((2, 112, 8), (1, 40, 8))
    for view_index in range(NUM_VIEWS):
        for name, array in expected(view_index, 0, 112).items():
            np.testing.assert_array_equal(group[name][view_index], array)


def test_the_store_of_profile_mmap_is_its_numbers() -> None:
    """Without Zarr: 112 samples of eight bytes, then a checksum."""
    content = (FIXTURES / "v2-mmap" / "q" / "c" / "1" / "0" / "0").read_bytes()
    assert len(content) == 112 * 8 + 4
    assert list(content[:8]) == [1, 32, 63, 94, 125, 156, 187, 218]
