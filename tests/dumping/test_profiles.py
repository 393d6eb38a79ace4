"""Stored targets and a student's batches do not depend on the profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny import dump_tiny

from bancache.cache.reader import Cache
from bancache.loader import LoaderOptions
from bancache.loader.open import cached_loader
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache_cli import main

CODES = (
    "root4",
    "root8",
    "root12",
    "root1-4",
    "root2-64",
    "root2-256",
    "root2-1024",
    "root5-32768",
    "int8",
    "bfloat16",
)


@pytest.mark.parametrize("encoding", CODES)
def test_every_code_is_the_same_in_every_profile(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, encoding: str
) -> None:
    """Targets to the last bit, and the summary; of caches with three files per view and with one."""
    caches = {}
    for profile in ("default", "compact", "mmap"):
        out = tmp_path / f"{profile}.zarr"
        caches[profile] = dump_tiny(teacher_path, spec, data, out, encoding=encoding, profile=profile)[
            0
        ].cache
    plain = caches.pop("default")
    for cache in caches.values():
        assert cache.summary == plain.summary
        for view_index in (3, 0, 1, 2):
            encoded, expected = cache.read_view(view_index), plain.read_view(view_index)
            assert list(encoded) == list(expected)
            for name, values in expected.items():
                assert encoded[name].dtype == values.dtype
                np.testing.assert_array_equal(encoded[name], values)


def test_a_student_sees_the_same_batches(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    def epochs(cache: Cache) -> list[torch.Tensor | None]:
        loader = cached_loader(cache, data, LoaderOptions(batch_size=16, seed=1))
        return [
            part
            for epoch in range(5)
            for batch in loader.epoch(epoch)
            for part in (batch.images, batch.targets)
        ]

    plain = epochs(dump_tiny(teacher_path, spec, data, tmp_path / "default.zarr")[0].cache)
    assert len(plain) == 5 * 6 * 2
    for profile in ("compact", "mmap"):
        out = tmp_path / f"{profile}.zarr"
        seen = epochs(dump_tiny(teacher_path, spec, data, out, profile=profile)[0].cache)
        for ours, theirs in zip(seen, plain, strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)


def test_a_command_names_the_profile_and_refuses_one_that_cannot_be(
    tmp_path: Path, teacher_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["dump", "--teacher", str(teacher_path), "--out", str(tmp_path / "a.zarr"), "--profile"]
    assert main([*args, "compact", "-q"]) == 0
    assert main(["info", str(tmp_path / "a.zarr")]) == 0
    assert "2, profile compact, made with bancache" in capsys.readouterr().out
    other = [*args[:-2], str(tmp_path / "b.zarr"), "--profile"]
    assert main([*other, "compact", "--encoding", "float16", "-q"]) == 2
    assert "float16[3]" in capsys.readouterr().err
    assert not (tmp_path / "b.zarr").exists()
    assert main([*args, "mmap", "-q"]) == 4
    assert "profile: made with 'compact', but this run has 'mmap'" in capsys.readouterr().err
