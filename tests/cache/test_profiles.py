"""Every profile holds the same values to the last bit, and is written, resumed, verified and repaired alike."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from contracts.damage import DAMAGES
from contracts.killing import tree
from contracts.small_cache import (
    Q,
    check_view,
    expected_view,
    facts,
    fields,
    make_manifest,
    summarize,
    write,
    write_some,
)

from bancache.cache import Layout, Manifest, Shard
from bancache.cache.chunks import decode_chunk
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import verify_cache
from bancache.cache.views import stored_bytes
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError, UsageError

pytestmark = pytest.mark.usefixtures("small_shards")

PROFILES = ("default", "compact", "mmap")
LEVELS = FieldSpec("q", "int16", (10,), ("class",))
LOGITS = FieldSpec("logits", "float32", (10,), ("class",))
COMPACT = make_manifest(profile="compact")


def in_some_order(layout: Layout) -> list[Shard]:
    """Any order in which each shard follows the one it requires."""
    shards = random.Random(3).sample(layout.shards(), layout.count)
    return sorted(shards, key=lambda shard: layout.requires(shard) is not None)


@pytest.mark.parametrize("shards", [None, 9])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("field", [Q, LEVELS], ids=["bytes", "int16"])
def test_every_view_reads_back_to_the_last_bit(
    tmp_path: Path, profile: str, field: FieldSpec, shards: int | None
) -> None:
    """In any order, twice, together with the other array."""
    manifest = make_manifest(
        profile=profile, fields=(field, FieldSpec("shift", "float32", (), ())), shard_samples=shards
    )
    write(tmp_path / "a.zarr", manifest)
    cache = open_cache(tmp_path / "a.zarr")
    for view_index in (2, 0, 1, 2):
        found, expected = cache.read_view(view_index), expected_view(manifest, view_index)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()
            found[name][:] = 1  # what is returned is the caller's own
    assert cache.manifest == manifest
    assert cache.mapped == (profile == "mmap")
    assert verify_cache(tmp_path / "a.zarr") == []


@pytest.mark.parametrize("shards", [None, 9])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_order_of_writing_and_where_it_stopped_leave_no_trace(
    tmp_path: Path, profile: str, shards: int | None
) -> None:
    manifest = make_manifest(profile=profile, shard_samples=shards)
    expected = tree(write(tmp_path / "plain.zarr", manifest))
    order = in_some_order(Layout(manifest))
    for part in (order[:2], order[2:5], order[5:]):
        with open_writer(tmp_path / "a.zarr", manifest) as writer:
            assert writer is not None
            for shard in part:
                writer.write_shard(shard, fields(manifest, shard), facts(shard))
    with open_writer(tmp_path / "a.zarr", manifest) as writer:
        assert writer is not None
        writer.finish(summarize)
    assert tree(tmp_path / "a.zarr") == expected


def test_only_what_changed_has_a_new_format_version() -> None:
    assert [make_manifest(profile=profile).format_version for profile in PROFILES] == [1, 2, 2]
    assert [make_manifest(profile=profile, shard_samples=9).format_version for profile in PROFILES] == [3] * 3
    assert "profile" not in make_manifest().to_dict()
    assert {**make_manifest(profile="mmap").to_dict(), "profile": 0} == {
        **make_manifest().to_dict(),
        "format_version": 2,
        "profile": 0,
    }


@pytest.mark.parametrize("complete", [True, False])
def test_another_profile_is_refused_with_both_names(tmp_path: Path, complete: bool) -> None:
    path = write(tmp_path / "a.zarr", COMPACT) if complete else write_some(tmp_path / "a.zarr", [0], COMPACT)
    with pytest.raises(MismatchError, match=r"'compact'.*'default'"):
        write(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"profile": "tiny"}, "profile: .*'tiny'"),
        ({"profile": ["mmap"]}, "profile: .*array"),
        ({"profile": "compact", "classes": 11}, r"compact .*q uint8\[10\], shift float32\[\]"),
        ({"profile": "compact", "fields": (LOGITS,)}, r"compact .*logits float32\[10\]"),
    ],
)
def test_a_profile_that_does_not_fit_makes_no_manifest(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_manifest(**changes)


# What compact depends on.


def test_only_a_compact_shard_beyond_view_0_requires_another() -> None:
    layout = Layout(COMPACT)
    required = {shard.index: layout.requires(shard) for shard in layout.shards()}
    assert {index: found and found.index for index, found in required.items()} == {
        **dict.fromkeys((0, 1, 2)),
        **dict(zip(range(3, 9), (0, 1, 2, 0, 1, 2), strict=True)),
    }
    for profile in ("default", "mmap"):
        other = Layout(make_manifest(profile=profile))
        assert not any(other.requires(shard) for shard in other.shards())


def test_a_shard_is_not_written_before_the_one_it_requires(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shard 4 \(view 1, .*shard 1 \(view 0, "):
        write_some(tmp_path / "a.zarr", [0, 2, 4], COMPACT)


def test_only_codes_beyond_view_0_are_folded(tmp_path: Path) -> None:
    """The numbers that plain Zarr finds: everything else is as in the default profile."""
    compact, plain = (
        zarr.open_group(write(tmp_path / p.profile, p), mode="r") for p in (COMPACT, make_manifest())
    )
    for name, view_index in itertools.product(("q", "shift"), range(3)):
        one: Any = compact[name]
        other: Any = plain[name]
        assert np.array_equal(one[view_index], other[view_index]) == (name == "shift" or view_index == 0)


@pytest.mark.parametrize("profile", PROFILES)
def test_sizes_can_be_told_without_a_cache(tmp_path: Path, profile: str) -> None:
    """Of whole shards: each file has its checksum besides."""
    manifest = make_manifest(profile=profile)
    path, layout = write(tmp_path / "a.zarr", manifest), Layout(manifest)
    for view_index, block in itertools.product(range(3), range(2)):
        shard = layout.shard(3 * view_index + block)
        reference = fields(manifest, layout.shard(block)) if view_index else None
        told = stored_bytes(fields(manifest, shard), 10, profile, reference=reference)
        assert told == sum((path / key).stat().st_size - 4 for key in layout.chunk_keys(shard))


@pytest.mark.parametrize("way", DAMAGES)
def test_damage_in_view_0_of_a_compact_cache_is_named_by_every_view(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "a.zarr", COMPACT)
    DAMAGES[way](path / "q/c/0/1/0", path / "q/c/0/0/0")
    named = "shard [01] " if way == "swapped" else r"shard 1 \(view 0, samples 14 to 27\)"
    for view_index in (1, 0, 2):
        with pytest.raises(CacheDamagedError, match=named):
            open_cache(path).read_view(view_index)


def test_damage_elsewhere_in_a_compact_cache_is_that_views_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", COMPACT)
    DAMAGES["flipped"](path / "q/c/1/2/0", path)
    with pytest.raises(CacheDamagedError, match=r"shard 5 \(view 1, samples 28 to 39\)"):
        open_cache(path).read_view(1)
    for view_index in (0, 2):
        check_view(path, view_index, COMPACT)


def test_what_was_written_relative_to_a_lost_shard_is_written_again(tmp_path: Path) -> None:
    """A second forward pass may differ in a bit; shards relative to the old values would then be read wrong."""
    undisturbed = tree(write(tmp_path / "plain.zarr", COMPACT))
    for harm in ("q/c/0/1/0", ".regions/000001.json"):
        path = write_some(tmp_path / f"{len(harm)}.zarr", range(8), COMPACT)
        (path / harm).unlink()
        with open_writer(path, COMPACT) as writer:
            assert writer is not None
            assert [shard.index for shard in writer.pending()] == [1, 4, 7, 8]
        assert tree(write(path, COMPACT)) == undisturbed


def test_a_shard_relative_to_other_values_is_written_again(tmp_path: Path) -> None:
    """View 0 was lost and written with other codes in between: its record is true, the other views' are not."""
    path = write_some(tmp_path / "a.zarr", range(5), COMPACT)
    other = write_some(tmp_path / "b.zarr", [], COMPACT)
    with open_writer(other, COMPACT) as writer:
        assert writer is not None
        changed = {name: values + 1 for name, values in fields(COMPACT, writer.layout.shard(0)).items()}
        writer.write_shard(writer.layout.shard(0), changed, facts(writer.layout.shard(0)))
    for key in ("q/c/0/0/0", "shift/c/0/0", ".regions/000000.json"):
        (other / key).rename(path / key)
    with open_writer(path, COMPACT) as writer:
        assert writer is not None
        assert [shard.index for shard in writer.pending()] == [3, 5, 6, 7, 8]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_repair_puts_back_the_same_bytes(tmp_path: Path, profile: str) -> None:
    """View 0 and a shard relative to it, both lost, and a zarr.json."""
    manifest = make_manifest(profile=profile)
    path = write(tmp_path / "a.zarr", manifest)
    before = tree(path)
    for key in ("q/c/0/1/0", "q/c/2/1/0", "shift/c/2/1", "q/zarr.json"):
        DAMAGES["flipped"](path / key, path)
    findings = verify_cache(path)
    assert [f.shard.index for f in findings if f.shard] == [1, 7, 7]
    with open_repairer(path) as repairer:
        repairer.restore_descriptions()
        for index in (1, 7):
            shard = repairer.layout.shard(index)
            repairer.rewrite(shard, fields(manifest, shard))
        with pytest.raises(MismatchError, match="shard 7 "):
            repairer.rewrite(shard, {**fields(manifest, shard), "q": np.zeros((14, 10), np.uint8)})
    assert tree(path) == before


def test_a_repair_relative_to_a_shard_that_is_still_damaged_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", COMPACT)
    for key in ("q/c/0/1/0", "q/c/2/1/0"):
        DAMAGES["flipped"](path / key, path)
    with open_repairer(path) as repairer, pytest.raises(CacheDamagedError, match="shard 1 "):
        repairer.rewrite(repairer.layout.shard(7), fields(COMPACT, repairer.layout.shard(7)))


@pytest.mark.parametrize("shards", [None, 9])
@pytest.mark.parametrize("profile", PROFILES)
def test_other_programs_open_every_profile(tmp_path: Path, profile: str, shards: int | None) -> None:
    """View 0 of each is read as it is; in profile compact the others are folded, as docs/format.md says."""
    manifest: Manifest = make_manifest(profile=profile, shard_samples=shards)
    path = write(tmp_path / "a.zarr", manifest)
    group: Any = zarr.open_group(path, mode="r")
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(path) as data:
        assert dict(data.sizes) == {"view": 3, "sample": 40, "class": 10}
        for view_index, name in itertools.product(range(3), ("q", "shift")):
            expected = expected_view(manifest, view_index)[name]
            readable = profile != "compact" or view_index == 0 or name == "shift"
            assert np.array_equal(group[name][view_index], expected) == readable
            assert np.array_equal(data[name][view_index].values, expected) == readable


@pytest.mark.parametrize("profile", ["default", "compact"])
def test_a_large_view_is_read_by_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """Two at once; a damaged shard is named as by one."""
    manifest = make_manifest(profile=profile)
    path, together = write(tmp_path / "a.zarr", manifest), threading.Barrier(2)
    monkeypatch.setattr("bancache.cache.views._THREADED_BYTES", 0)
    monkeypatch.setattr("bancache.cache.views._threads", lambda: 2)
    met, calls = list[int](), itertools.count()

    def watched(*args: Any, **more: Any) -> str | None:
        if next(calls) < 2:
            met.append(together.wait(timeout=30))
        return decode_chunk(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr("bancache.cache.views.decode_chunk", watched)
        open_cache(path).read_view(0)
    assert sorted(met) == [0, 1]
    for view_index in range(3):
        check_view(path, view_index, manifest)
    DAMAGES["flipped"](path / "q/c/1/1/0", path)
    with pytest.raises(CacheDamagedError, match=r"shard 4 \(view 1, samples 14 to 27\)"):
        open_cache(path).read_view(1)
