"""Where encoded targets lie is a function of the manifest, and frozen: caches on disk depend on it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from contracts.small_cache import Q, make_manifest

from bancache.cache import Layout, Manifest
from bancache.cache.digests import Digest
from bancache.cache.layout import describe_arrays, shard_samples_of
from bancache.cache.manifest_io import MANIFEST, MANIFEST_LIMIT, with_manifest
from bancache.cache.profile import PROFILES, folded
from bancache.cache.reader import open_cache
from bancache.encodings import parse_encoding
from bancache.encodings.fields import FieldSpec
from bancache.system.files import write_json

LIMIT = 2 << 20
LARGE = FieldSpec("z", "float32", (1000,), ("class",))

SHAPES = [
    (1, 1, (Q,)),
    (1, 7, (Q,)),
    (3, 1, (LARGE,)),
    (1000, 2, (Q,)),
    (525, 2, (LARGE,)),
    (1049, 3, (LARGE, Q)),
    (5, 2, (FieldSpec("z", "float32", (600_000,), ("class",)),)),
    (300_001, 2, (Q,)),
]


@pytest.mark.parametrize(("samples", "num_views", "fields"), SHAPES)
def test_every_sample_of_every_view_lies_in_exactly_one_shard(
    samples: int, num_views: int, fields: tuple[FieldSpec, ...]
) -> None:
    layout = Layout(make_manifest(samples=samples, num_views=num_views, fields=fields))
    covered = np.zeros((num_views, samples), int)
    shards = layout.shards()
    assert [shard.index for shard in shards] == list(range(layout.count))
    for shard in shards:
        assert shard.start == shard.block * layout.block
        covered[shard.view_index, shard.start : shard.stop] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("samples", "num_views", "fields"), SHAPES)
def test_no_shard_is_over_the_limit_by_more_than_a_pair(
    samples: int, num_views: int, fields: tuple[FieldSpec, ...]
) -> None:
    layout = Layout(make_manifest(samples=samples, num_views=num_views, fields=fields))
    pair = sum(layout.pair_bytes)
    assert (layout.block - 1) * pair < LIMIT
    sizes = [shard.stop - shard.start for shard in layout.shards()]
    assert max(sizes) - min(sizes) < max(layout.blocks, 1)


@pytest.mark.parametrize(
    ("samples", "classes", "block", "blocks"),
    [
        (50_000, 100, 16_667, 3),  # CIFAR-100 in one byte a class
        (50_000, 10, 50_000, 1),
        (1_281_167, 1000, 2097, 611),  # ImageNet
        (2_097_152, 1, 2_097_152, 1),
        (2_097_153, 1, 1_048_577, 2),
    ],
)
def test_the_size_of_shards_is_frozen(samples: int, classes: int, block: int, blocks: int) -> None:
    field = FieldSpec("q", "uint8", (classes,), ("class",))
    layout = Layout(make_manifest(samples=samples, num_views=1, fields=(field,)))
    assert (layout.block, layout.blocks) == (block, blocks)


ENCODINGS = ["root4", "root2-1024", "float32", "float16", "bfloat16", "float16-shift", "int8", "topk-16"]


def fields_of(encoding: str) -> tuple[FieldSpec, ...]:
    """Return what an encoding stores of 1,000 classes."""
    pytest.importorskip("torch", reason="encodings are made with torch")
    return parse_encoding(encoding, 1000).fields()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_three_hundred_views_of_imagenet_are_at_most_thirty_thousand_files(
    encoding: str, profile: str
) -> None:
    fields = fields_of(encoding)
    if profile == "compact" and not folded(profile, fields, 1000):
        pytest.skip("compact has nothing to fold")
    block = shard_samples_of(1_281_167, fields, profile)
    manifest = make_manifest(
        samples=1_281_167, num_views=300, classes=1000, fields=fields, profile=profile, shard_samples=block
    )
    layout = Layout(manifest)
    assert layout.files() + 1 <= 30_000
    assert (layout.block - 1) * sum(layout.pair_bytes) < 64 << 20
    assert manifest.format_version == (2 if profile == "mmap" else 3)


def test_a_cache_of_imagenets_size_is_opened_by_its_manifest_alone(tmp_path: Path) -> None:
    """There is no other file here; 29,702 of them are listed."""
    fields = fields_of("root4")
    manifest = make_manifest(
        samples=1_281_167, num_views=300, classes=1000, fields=fields, shard_samples=12_942
    )
    layout = Layout(manifest)
    keys = [*layout.metadata_keys(), *(key for shard in layout.shards() for key in layout.chunk_keys(shard))]
    files = {key: Digest(1000 + place, f"{place:064x}") for place, key in enumerate(keys)}
    write_json(tmp_path / MANIFEST, with_manifest(manifest, complete=True, files=files))
    tracemalloc.start()
    try:
        cache = open_cache(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()
    assert len(cache.digests) == 29_702
    assert cache.digests["q/c.299.98.0"].size == 1000 + 29_701
    assert (tmp_path / MANIFEST).stat().st_size < MANIFEST_LIMIT / 10


@pytest.mark.parametrize(
    ("samples", "classes", "dtype", "block"),
    [
        (50_000, 100, "uint8", None),  # CIFAR-100
        (1_281_167, 100, "uint8", None),  # 62 files a view
        (207_618, 1000, "uint8", None),  # 99 files
        (1_281_167, 1000, "uint8", 12_942),  # ImageNet
        (1_281_167, 1000, "float32", 12_942),
        (14_197_122, 21_841, "uint8", 3073),  # all of ImageNet: shards of 64 MiB, in 4,620 files a view
    ],
)
def test_the_size_of_shards_that_a_new_cache_gets(
    samples: int, classes: int, dtype: str, block: int | None
) -> None:
    """Of few files, it is that of all earlier versions, so that they read it."""
    field = FieldSpec("q", dtype, (classes,), ("class",))
    assert shard_samples_of(samples, (field,), "default") == block


def test_a_manifest_that_names_the_size_of_shards_has_that_size() -> None:
    layout = Layout(make_manifest(shard_samples=15))
    assert [(shard.start, shard.stop) for shard in layout.shards_of(1)] == [(0, 15), (15, 30), (30, 40)]
    assert layout.array_settings()[0]["chunks"] == (1, 15, 10)
    assert layout.chunk_keys(layout.shard(5)) == ["q/c.1.2.0", "shift/c.1.2"]
    assert Manifest.from_dict(layout.manifest.to_dict()) == layout.manifest


@pytest.mark.usefixtures("small_shards")
def test_files_and_shards_of_a_small_cache_are_frozen() -> None:
    """Every cache on disk depends on these names: if one changes, no old cache can be read."""
    layout = Layout(make_manifest())
    assert [(r.index, r.view_index, r.block, r.start, r.stop) for r in layout.shards()] == [
        (0, 0, 0, 0, 14),
        (1, 0, 1, 14, 28),
        (2, 0, 2, 28, 40),
        (3, 1, 0, 0, 14),
        (4, 1, 1, 14, 28),
        (5, 1, 2, 28, 40),
        (6, 2, 0, 0, 14),
        (7, 2, 1, 14, 28),
        (8, 2, 2, 28, 40),
    ]
    assert str(layout.shard(5)) == "shard 5 (view 1, samples 28 to 39)"
    assert layout.chunk_keys(layout.shard(5)) == ["q/c/1/2/0", "shift/c/1/2"]
    assert layout.metadata_keys() == ["zarr.json", "q/zarr.json", "shift/zarr.json"]
    assert layout.files() == 9 * 2 + 3
    assert layout.chunk_bytes() == {"q": 140, "shift": 56}


def test_a_chunk_is_named_by_view_block_and_a_zero_for_each_dimension_of_its_field() -> None:
    field = FieldSpec("pairs", "int16", (4, 2), ("rank", "part"))
    layout = Layout(make_manifest(samples=1, num_views=12, fields=(field, Q)))
    assert layout.chunk_keys(layout.shard(11)) == ["pairs/c/11/0/0/0", "q/c/11/0/0"]


def test_one_sample_in_one_view_is_one_shard() -> None:
    layout = Layout(make_manifest(samples=1, num_views=1))
    assert [(r.start, r.stop) for r in layout.shards()] == [(0, 1)]
    assert layout.array_settings()[0]["shape"] == (1, 1, 10)


def test_equal_manifests_give_equal_zarr_json() -> None:
    """The order in which a manifest's keys were read does not show."""
    one = make_manifest(compute={"batch_size": 1, "precision": "float32"})
    other = make_manifest(compute={"precision": "float32", "batch_size": 1})
    assert describe_arrays(Layout(one)) == describe_arrays(Layout(other))
