"""A cache is of one piece: it says on what kind of device its teacher ran, and goes on there only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from contracts.calling import call, succeed
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, FEW, MANY, THREE_SHARDS, After, dump_tiny, settings

from bancache.cache.reader import open_cache
from bancache.dumping import dump, prepare, recompute
from bancache.dumping.merge import merge_caches
from bancache.dumping.resize import extend, prune
from bancache.errors import MismatchError, StoppedError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import arithmetic
from bancache.system.environment import environment, versions

H200: dict[str, Any] = {"device": "NVIDIA H200", "tf32": "convolutions", "deterministic": False}
KINDS: list[dict[str, Any]] = [
    {"device": "cpu"},
    H200,
    {**H200, "device": "NVIDIA H100 80GB HBM3"},
    {**H200, "tf32": "none"},
    {**H200, "deterministic": True},
]


def on(monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]) -> None:
    """Let a CPU pass for another kind of device."""
    monkeypatch.setattr(recompute, "arithmetic", lambda device: kind)


def begin(teacher_path: Path, spec: DataSpec, data: ImageSet, out: Path) -> None:
    """Dump one shard of several."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    with pytest.raises(StoppedError):
        dump(teacher, data, spec, out, settings(teacher), device=CPU, interrupt=After(1))


def test_a_gpu_is_recorded_by_its_name_its_rounding_and_its_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert arithmetic(gpu) == H200  # torch's defaults
    asked = SimpleNamespace(fp32_precision="ieee"), SimpleNamespace(fp32_precision="tf32")
    monkeypatch.setattr(torch.backends.cudnn, "conv", asked[0])
    monkeypatch.setattr(torch.backends.cuda, "matmul", asked[1])
    assert arithmetic(gpu)["tf32"] == "matmuls"
    assert versions(gpu).keys() - versions().keys() == {"cuda", "cudnn"}
    assert environment(gpu)["gpu"] == "NVIDIA H200"
    assert arithmetic(CPU) == {"device": "cpu"}


@pytest.mark.parametrize("first", range(len(KINDS)))
def test_a_dump_goes_on_only_on_the_kind_of_device_that_began_it(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
) -> None:
    on(monkeypatch, KINDS[first])
    begin(teacher_path, spec, data, tmp_path / "a.zarr")
    for kind in KINDS[:first] + KINDS[first + 1 :]:
        on(monkeypatch, kind)
        with pytest.raises(MismatchError) as refused:
            dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")
        for values in (kind, KINDS[first]):
            assert all(str(value) in str(refused.value) for value in values.values())
        assert "--overwrite" in refused.value.hint
    on(monkeypatch, KINDS[first])
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")[0].cache
    assert cache.manifest.compute == {"batch_size": 32, "precision": "float32", **KINDS[first]}


def test_a_dump_may_go_on_on_another_kind_if_asked_and_the_cache_says_so_for_ever(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also after it has grown, has lost views or was merged; a cache of one kind says nothing of it."""
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)
    out, teacher = tmp_path / "a.zarr", load_teacher(str(teacher_path), device=CPU)
    begin(teacher_path, spec, data, out)
    on(monkeypatch, H200)
    dump(teacher, data, spec, out, settings(teacher), device=CPU, mixed=True)
    on(monkeypatch, {"device": "cpu"})
    prune(out, data, FEW, out=tmp_path / "b.zarr")
    extend(tmp_path / "b.zarr", teacher, data, MANY, out=tmp_path / "c.zarr", device=CPU)
    for name in ("a.zarr", "b.zarr", "c.zarr"):
        assert open_cache(tmp_path / name).manifest.compute["device"] == "cpu"
        assert succeed("info", tmp_path / name)["mixed_devices"] == [H200]
    assert "NVIDIA H200" in call("info", out).out
    dump_tiny(teacher_path, spec, data, tmp_path / "d.zarr")
    assert succeed("info", tmp_path / "d.zarr")["mixed_devices"] == []
    assert "mixed_devices" not in open_cache(tmp_path / "d.zarr").summary


def test_other_libraries_are_no_reason_to_refuse(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bytes are compared, and a mixture is warned of."""
    begin(teacher_path, spec, data, tmp_path / "a.zarr")
    before = versions()
    monkeypatch.setattr(prepare, "versions", lambda device: {**before, "torch": "3.0"})
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")[0].cache
    assert cache.manifest.created_with == before


def test_a_complete_cache_is_complete_on_any_device(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, H200)
    digest = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")[0].cache.digest
    on(monkeypatch, KINDS[0])
    assert dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")[0].num_pairs == 0
    assert succeed("info", tmp_path / "a.zarr")["compute"]["device"] == "NVIDIA H200"
    assert open_cache(tmp_path / "a.zarr").digest == digest


def test_a_cache_gets_no_views_from_another_device_and_loses_views_anywhere(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, H200)
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=FEW)
    on(monkeypatch, KINDS[0])
    teacher = load_teacher(str(teacher_path), device=CPU)
    with pytest.raises(MismatchError, match=r"NVIDIA H200.*cpu"):
        extend(tmp_path / "a.zarr", teacher, data, MANY, out=tmp_path / "b.zarr", device=CPU)
    assert not (tmp_path / "b.zarr").exists()
    pruned = prune(tmp_path / "a.zarr", data, 1, out=tmp_path / "c.zarr")
    assert pruned.manifest.compute["device"] == "NVIDIA H200"


def test_parts_from_different_devices_are_not_merged(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)
    for name, kind in (("a.zarr", KINDS[0]), ("b.zarr", H200)):
        on(monkeypatch, kind)
        begin(teacher_path, spec, data, tmp_path / name)
    with pytest.raises(MismatchError, match=r"a\.zarr and b\.zarr.*cpu.*NVIDIA H200"):
        merge_caches([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()
