"""Damage is found by verify, and repair puts back the bytes that were there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from contracts.killing import tree
from contracts.tiny import CPU, dump_tiny

from bancache.cache.verify import verify_cache
from bancache.dumping.repair import repair
from bancache.errors import CacheDamagedError, MismatchError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache_cli import main


@pytest.fixture(params=["default", "compact", "mmap"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr", profile=request.param)
    return tmp_path / "gen0.zarr"


def damage(cache: Path) -> list[str]:
    """Damage a cache in all ways at once; return what verify must say of each file."""
    num_views = [cache / "q" / "c" / str(view_index) / "0" / "0" for view_index in range(4)]
    content = bytearray(num_views[0].read_bytes())
    content[5] ^= 64
    num_views[0].write_bytes(content)
    swapped = num_views[1].read_bytes()
    size = num_views[2].stat().st_size
    num_views[2].write_bytes(swapped)
    num_views[3].unlink()
    (cache / "q" / "zarr.json").write_bytes(b"")
    second = "its sha256 is not the one written"
    if len(swapped) != size:
        second = f"it has {len(swapped)} bytes instead of {size}"
    return [
        "shard 0 (view 0, samples 0 to 95): its sha256 is not the one written",
        f"shard 2 (view 2, samples 0 to 95): {second}",
        "shard 3 (view 3, samples 0 to 95): it is missing",
        "q/zarr.json: it has 0 bytes instead of",
    ]


def test_verify_finds_all_damage(cache: Path) -> None:
    assert verify_cache(cache) == []
    expected = damage(cache)
    found = [str(finding) for finding in verify_cache(cache)]
    assert len(found) == len(expected)
    for sentence in expected:
        assert any(said.startswith(sentence) for said in found), (sentence, found)


def test_repair_restores_every_byte(cache: Path, tmp_path: Path, teacher_path: Path, data: ImageSet) -> None:
    sound = tree(cache)
    damage(cache)
    done = repair(cache, load_teacher(str(teacher_path), device=CPU), data, device=CPU)
    assert (len(done.found), done.shards) == (4, 3)
    assert tree(cache) == sound
    assert verify_cache(cache) == []


def test_repair_needs_the_caches_own_teacher_and_data(
    cache: Path, tmp_path: Path, teacher_path: Path, data: ImageSet
) -> None:
    damage(cache)
    before = tree(cache)
    stored = load_checkpoint(teacher_path)
    state = {
        name: value * 1.01 if value.is_floating_point() else value for name, value in stored.state.items()
    }
    save_checkpoint(tmp_path / "other.pt", state, stored.header)
    other = load_teacher(str(tmp_path / "other.pt"), device=CPU)
    with pytest.raises(MismatchError, match=other.fingerprint[:12]):
        repair(cache, other, data, device=CPU)
    with pytest.raises(MismatchError, match=data.fingerprint[:12]):
        repair(cache, load_teacher(str(teacher_path), device=CPU), data.first(90), device=CPU)
    assert tree(cache) == before


def test_a_teacher_with_other_logits_changes_nothing(cache: Path, teacher_path: Path, data: ImageSet) -> None:
    """As with other libraries or hardware: the fingerprint is right, the logits are not."""
    damage(cache)
    teacher = load_teacher(str(teacher_path), device=CPU)
    with torch.no_grad():
        next(iter(teacher.model.parameters())).mul_(1.5)
    broken = (cache / "q" / "c" / "0" / "0" / "0").read_bytes()
    with pytest.raises(MismatchError, match=r"shard \d"):
        repair(cache, teacher, data, device=CPU)
    assert (cache / "q" / "c" / "0" / "0" / "0").read_bytes() == broken


def test_the_commands_find_and_repair(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = tree(cache)
    assert main(["verify", str(cache), "-q"]) == 0
    damage(cache)
    assert main(["verify", str(cache), "-q"]) == CacheDamagedError.exit_code
    shown = capsys.readouterr()
    assert "shard 3 (view 3, samples 0 to 95): it is missing" in shown.out
    assert "4 damaged files" in shown.err
    assert main(["repair", str(cache), "-q"]) == 0
    assert tree(cache) == sound


def test_a_cache_repaired_elsewhere_is_the_same_cache(cache: Path, tmp_path: Path) -> None:
    """Copies compare by bytes: nothing in a store depends on where it lies."""
    shutil.copytree(cache, tmp_path / "copy.zarr")
    damage(tmp_path / "copy.zarr")
    assert main(["repair", str(tmp_path / "copy.zarr"), "-q"]) == 0
    assert tree(tmp_path / "copy.zarr") == tree(cache)


def test_a_repair_removes_what_a_killed_writer_left(cache: Path, teacher_path: Path, data: ImageSet) -> None:
    before = tree(cache)
    damage(cache)
    (cache / "q" / "c" / "0" / "0" / "0.12345678.partial").write_bytes(b"half")
    (cache / ".claims").mkdir()
    teacher = load_teacher(str(teacher_path), device=CPU)
    repair(cache, teacher, data, device=CPU)
    assert tree(cache) == before
    assert not (cache / ".claims").exists()
