"""A dump that goes on where the teacher's last bits differ says so before it mixes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.killing import tree
from contracts.tiny import CPU, THREE_SHARDS, After, dump_tiny, settings
from sources.tiny import Heard

from bancache.dumping import dump
from bancache.errors import StoppedError
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.mark.parametrize("profile", ["default", "compact", "mmap"])
def test_a_dump_that_goes_on_elsewhere_warns_that_it_mixes(
    tmp_path: Path,
    profile: str,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the same machine it says nothing and ends with the same bytes. One batch is run again, none of shard 0."""
    monkeypatch.setattr("bancache.cache.layout._SHARD_BYTES", THREE_SHARDS)
    monkeypatch.setattr("bancache.cache.layout._MAPPED_BYTES", THREE_SHARDS)
    teacher, told = load_teacher(str(teacher_path), device=CPU), Heard()
    asked = settings(teacher, profile=profile)
    whole, _ = dump_tiny(teacher_path, spec, data, tmp_path / "whole.zarr", profile=profile)
    places = tmp_path / "here.zarr", tmp_path / "elsewhere.zarr"
    for out in places:
        with pytest.raises(StoppedError):
            dump(teacher, data, spec, out, asked, device=CPU, interrupt=After(2))
    dump(teacher, data, spec, places[0], asked, device=CPU, progress=told)
    assert not any("mixture" in warning for warning in told.warnings)
    assert tree(places[0]) == tree(whole.cache.path)

    real = Teacher.logits
    monkeypatch.setattr(Teacher, "logits", lambda self, images: real(self, images).flip(1))
    done = dump(teacher, data, spec, places[1], asked, device=CPU, progress=told)
    (warning,) = [warning for warning in told.warnings if "mixture" in warning]
    assert "32 of 32 rows of shard 0" in warning
    assert "--overwrite" in warning
    assert done.finished
