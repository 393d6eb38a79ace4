"""The store is an ordinary Zarr v3 group: other programs open it without us, and without a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import zarr
from contracts.small_cache import expected_view, make_manifest


def test_plain_zarr_reads_every_entry(cache: Path) -> None:
    group: Any = zarr.open_group(cache, mode="r")
    assert sorted(name for name, _ in group.arrays()) == ["q", "shift"]
    q, shift = group["q"], group["shift"]
    assert (q.shape, q.chunks, q.dtype) == ((3, 40, 10), (1, 14, 10), np.uint8)
    assert (shift.shape, shift.chunks, shift.dtype) == ((3, 40), (1, 14), np.float32)
    for view_index in range(3):
        expected = expected_view(make_manifest(), view_index)
        np.testing.assert_array_equal(q[view_index], expected["q"])
        np.testing.assert_array_equal(shift[view_index], expected["shift"])


def test_dimensions_have_names_and_the_group_carries_the_manifest(cache: Path) -> None:
    group: Any = zarr.open_group(cache, mode="r")
    assert group["q"].metadata.dimension_names == ("view", "sample", "class")
    assert group["shift"].metadata.dimension_names == ("view", "sample")
    assert group.attrs["bancache"] == make_manifest().to_dict()
    assert group.metadata.consolidated_metadata is not None


def test_the_codecs_are_those_of_the_format(cache: Path) -> None:
    codecs = {name: json.loads((cache / name / "zarr.json").read_text())["codecs"] for name in ("q", "shift")}
    rest = [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}, {"name": "crc32c"}]
    assert codecs["q"] == [{"name": "bytes"}, *rest]
    assert codecs["shift"] == [{"name": "bytes", "configuration": {"endian": "little"}}, *rest]


def test_xarray_reads_it_with_named_dimensions(cache: Path) -> None:
    import xarray

    with xarray.open_zarr(cache) as data:
        assert dict(data.sizes) == {"view": 3, "sample": 40, "class": 10}
        assert data.attrs["bancache"]["samples"] == 40
        assert data["q"].dims == ("view", "sample", "class")
        assert data["shift"].dims == ("view", "sample")
        found = data["q"].isel(view=1, sample=slice(14, 40)).values
        per_view = data["shift"].sum("sample").values
    np.testing.assert_array_equal(found, expected_view(make_manifest(), 1)["q"][14:])
    expected = [expected_view(make_manifest(), view_index)["shift"].sum() for view_index in range(3)]
    np.testing.assert_array_equal(per_view, expected)


def test_a_chunk_is_one_frame_and_its_checksum(cache: Path) -> None:
    """Without Zarr: the last block of a view index, filled up with zeros to the size of the others."""
    content = (cache / "q" / "c" / "2" / "2" / "0").read_bytes()
    assert int.from_bytes(content[-4:], "little") == google_crc32c.value(content[:-4])
    rows = np.frombuffer(numcodecs.Zstd().decode(content[:-4]), np.uint8).reshape(14, 10)
    np.testing.assert_array_equal(rows[:12], expected_view(make_manifest(), 2)["q"][28:])
    assert not rows[12:].any()
