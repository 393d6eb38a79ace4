"""Several teachers of one cache: what is stored is their mean, and all of them are bound to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.hostile import reseal
from contracts.killing import tree
from contracts.replaying import pretend_to_dump_on_a_gpu
from contracts.tiny import CPU, RECIPE, architecture
from contracts.workers import cluster
from torch import nn

from bancache import dump_shard, ensemble, open_loader, plan_shards
from bancache.cache.manifest_io import manifest_of, read_manifest, unfinished
from bancache.cache.reader import open_cache
from bancache.cluster import tasks
from bancache.errors import UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.models.ensemble import Ensemble
from bancache.models.teacher import Teacher, load_teacher
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.files import write_json
from bancache.training import TrainerOptions, run_for_labels, train
from bancache.views.model_input import ModelInput, Normalization

OWN = Normalization((100.0, 90.0, 80.0), (30.0, 50.0, 70.0))
SHORT = ("--num-views", "2", "--encoding", "float32")


@pytest.fixture(scope="module")
def other_path(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> Path:
    """A second teacher, of another seed and another normalization."""
    path = tmp_path_factory.mktemp("other") / "other.pt"
    run = run_for_labels(architecture(), replace(RECIPE, epochs=2), 1, spec, data, "crop1-flip")
    train(replace(run, normalization=OWN), data, held_out, TrainerOptions(path, CPU))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, other_path: Path) -> Path:
    """A cache of each teacher, and of both."""
    path = tmp_path_factory.mktemp("caches")
    for name, teachers in {
        "a": [teacher_path],
        "b": [other_path],
        "both": [teacher_path, other_path],
    }.items():
        named = [part for teacher in teachers for part in ("--teacher", teacher)]
        succeed("dump", *named, *SHORT, "--out", path / f"{name}.zarr")
    succeed(*("dump", teacher_path, other_path, *SHORT, "--combine", "logits", "--out", path / "logits.zarr"))
    return path


def rows(cache: Path, *, logits: bool = False) -> torch.Tensor:
    """Return the targets or the logits of two epochs in the order of seed 0."""
    loader = open_loader(cache, batch_size=96)
    parts = []
    for batch in (batch for epoch in range(2) for batch in loader.epoch(epoch)):
        assert batch.targets is not None
        parts.append(batch.logits if logits else batch.targets)
    return torch.cat(parts).double()


def test_what_is_stored_is_the_mean_of_what_each_teacher_gives_for_its_own_input(folder: Path) -> None:
    a, b = (rows(folder / f"{name}.zarr") for name in "ab")
    assert float((a - b).abs().max()) > 0.05
    torch.testing.assert_close(rows(folder / "both.zarr"), (a + b) / 2, rtol=0, atol=2e-6)
    a, b = (rows(folder / f"{name}.zarr", logits=True) for name in "ab")
    torch.testing.assert_close(rows(folder / "logits.zarr", logits=True), (a + b) / 2, rtol=1e-5, atol=1e-5)


def test_all_are_bound_and_info_names_them(folder: Path, teacher_path: Path, other_path: Path) -> None:
    taught = succeed("info", folder / "both.zarr")["teacher"]
    assert taught["combine"] == "probabilities"
    members = [load_checkpoint(path) for path in (teacher_path, other_path)]
    assert {each["path"] for each in taught["members"]} == {str(teacher_path), str(other_path)}
    bound = [
        {"fingerprint": m.fingerprint, "normalisation": m.header["normalisation"], "outputs": "logits"}
        for m in members
    ]
    bound.sort(key=lambda each: hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest())
    text = json.dumps({"combine": "probabilities", "members": bound}, sort_keys=True)
    assert taught["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()
    shown = call("info", folder / "both.zarr").out
    for part in (
        "ensemble of 2 convnet-4",
        "probabilities of",
        "gen0.pt",
        "other.pt",
        members[1].fingerprint[:8],
    ):
        assert part in shown
    prints = {
        succeed("info", folder / f"{n}.zarr")["teacher"]["fingerprint"] for n in ("both", "logits", "a")
    }
    assert len(prints) == 3


def test_the_order_of_the_teachers_is_one_and_another_ensemble_is_refused(
    folder: Path, teacher_path: Path, other_path: Path
) -> None:
    asked = ("dump", *SHORT, "--out", folder / "both.zarr", "--teacher")
    told = succeed(*asked, other_path, "--teacher", teacher_path)
    assert any("complete already" in note for note in told["notes"])
    refuse(4, "teacher", *asked, other_path, keep=folder)
    refuse(
        *(4, "teacher", *asked, teacher_path, "--teacher", other_path, "--combine", "logits"),
        keep=folder,
    )


def test_workers_run_all_of_several(
    folder: Path, teacher_path: Path, other_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a cluster, and of any engine: by the names that were typed, or by those in the manifest."""
    both = ("--teacher", teacher_path, "--teacher", other_path)
    out, whole = tmp_path / "c.zarr", folder / "both.zarr"
    with cluster() as found:
        for _ in range(2):
            succeed("dump", *both, *SHORT, "--out", out, "--scheduler", found.scheduler_address)
            assert tree(out) == tree(whole)
    monkeypatch.setattr(tasks, "_OPEN", tasks._Open())
    begun = read_manifest(out)
    for named in (None, [str(other_path), str(teacher_path)]):
        for path in out.rglob("c/*/*/*"):
            path.unlink()
        write_json(out / "manifest.json", unfinished(manifest_of(begun)))
        (out / ".claims").mkdir()
        (out / ".claims" / "lock").touch()
        (out / ".regions").mkdir()
        assert [dump_shard(out, shard, teacher=named) for shard in plan_shards(out)] == [True, True]
        succeed("dump", *both, *SHORT, "--out", out)
        assert tree(out) == tree(whole)
    with pytest.raises(UsageError):
        dump_shard(out, 0, teacher=[str(other_path), str(teacher_path)], weights=["a.pt"])


def test_plan_takes_several(teacher_path: Path, other_path: Path, tmp_path: Path) -> None:
    told = succeed("plan", teacher_path, other_path, "--num-views", "2", "--num-pairs", "96")
    assert told["teacher"] == f"{teacher_path} + {other_path}"


def test_a_cache_of_several_is_checked_repaired_and_extended(
    folder: Path, teacher_path: Path, other_path: Path, tmp_path: Path
) -> None:
    import shutil

    cache = tmp_path / "c.zarr"
    shutil.copytree(folder / "both.zarr", cache)
    both = ("--teacher", teacher_path, "--teacher", other_path)
    assert succeed("verify", cache, "--deep", *both)["audit"]["verdict"] == "verified"
    refuse(2, ("2", "1"), "verify", cache, "--teacher", teacher_path, hint=str(other_path))
    refuse(
        4, "teacher", "verify", cache, "--teacher", teacher_path, "--teacher", copied(teacher_path, tmp_path)
    )
    shard = next(path for path in sorted(cache.rglob("*")) if path.is_file() and path.parent.name == "0")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    assert succeed("repair", cache)["shards"] == 1
    assert shard.read_bytes() == whole
    succeed("extend", cache, "--num-views", "3", "--out", tmp_path / "more.zarr")
    assert succeed("verify", tmp_path / "more.zarr", *both)["audit"]["verdict"] == "verified"


def copied(teacher: Path, folder: Path) -> Path:
    """Return a checkpoint with other weights."""
    from bancache.models.checkpoint import save_checkpoint

    checkpoint = load_checkpoint(teacher)
    state = {name: value + 1 for name, value in checkpoint.state.items()}
    save_checkpoint(folder / "copied.pt", state, checkpoint.header)
    return folder / "copied.pt"


def test_a_cache_chooses_no_code_by_a_member(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "both.zarr", tmp_path / "c.zarr")
    reseal(tmp_path / "c.zarr", lambda s: s["promise"]["teacher"]["members"][1].update(path="os:abort"))
    refuse(2, ("os:abort",), "repair", tmp_path / "c.zarr", hint="--teacher", keep=tmp_path)
    reseal(tmp_path / "c.zarr", lambda s: s["promise"]["teacher"]["members"][1].update(path=5))
    refuse(3, ("path",), "info", tmp_path / "c.zarr")


def test_students_know_their_teachers(
    folder: Path, tmp_path: Path, teacher_path: Path, other_path: Path
) -> None:
    asked = ("train-student", "--cache", folder / "both.zarr", "--epochs", "1", "--out", tmp_path / "gen1.pt")
    told = succeed(*asked)
    assert (told["model"], told["generation"]) == ("convnet-4", 1)
    (ancestor,) = load_checkpoint(tmp_path / "gen1.pt").header["lineage"]
    assert ancestor["model"] == "ensemble of 2 convnet-4"
    assert set(ancestor["members"]) == {load_checkpoint(p).fingerprint for p in (teacher_path, other_path)}
    refuse(2, "ensemble", *asked, "--overwrite", "--share-layers", "copy", hint="--share-layers none")
    succeed("dump", tmp_path / "gen1.pt", "--num-views", "1")


def test_teachers_that_do_not_go_together_are_refused(
    spec: DataSpec, data: ImageSet, held_out: ImageSet, teacher_path: Path, tmp_path: Path
) -> None:
    one = replace(RECIPE, epochs=1)
    run = run_for_labels(architecture("convnet-2"), one, 0, spec, data, "identity")
    train(run, data, held_out, TrainerOptions(tmp_path / "still.pt", CPU))
    asked = ("dump", "--out", tmp_path / "c.zarr", *SHORT, "--teacher", teacher_path, "--teacher")
    refuse(2, ("crop1-flip", "identity"), *asked, tmp_path / "still.pt", hint="--views", keep=tmp_path)
    refuse(1, ("none.pt",), *asked, tmp_path / "none.pt", keep=tmp_path)
    third = ("timm:resnet18", "--data", spec.source, "--views", "identity")
    refuse(2, ("1", "0"), *asked, *third, hint="--weights", keep=tmp_path)
    told = succeed(*asked, tmp_path / "still.pt", "--views", "crop1-flip")
    student = ("train-student", "--cache", tmp_path / "c.zarr", "--out", tmp_path / "gen1.pt")
    refuse(2, "convnet-4 . convnet-2", *student, hint="--model")
    assert told["samples"] == 96


# From Python.


class Fixed(nn.Module):
    """Gives the same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(logits), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.row.expand(len(images), -1)


def fixed(*logits: float, **more: Any) -> Teacher:
    known = ModelInput((4, 4), OWN, "a test")
    return Teacher(Fixed(*logits), str(logits), {"name": "fixed"}, path="fixed", input=known, **more)


def test_the_mean_of_probabilities_is_finite_where_float32_has_no_small_enough_number() -> None:
    together = ensemble([fixed(0.0, 500.0), fixed(0.0, 300.0)])
    (row,) = together.logits(torch.zeros(1, 3, 4, 4))
    assert row.tolist() == pytest.approx([-300 - np.log(2), 0.0], rel=1e-6)
    half = fixed(0.5, 0.5, outputs="probabilities")
    (row,) = ensemble([half, fixed(0.0, 0.0)], "logits").logits(torch.zeros(1, 3, 4, 4))
    assert row.tolist() == pytest.approx([np.log(0.5) / 2] * 2)


class Sum(nn.Module):
    """Writes over its images, as a model may whose first layer works in place."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = images.sum(dim=(1, 2, 3))
        images.zero_()
        return torch.stack([total, -total], dim=1)


@pytest.mark.parametrize("sizes", [(), ((4, 4), (4, 4))])
def test_a_member_that_writes_over_its_images_changes_no_other(sizes: tuple[tuple[int, int], ...]) -> None:
    known = ModelInput((4, 4), OWN, "a test")
    member = Teacher(Sum(), "sum", {"name": "sum"}, path="sum", input=known)
    model = Ensemble([member, member], "logits", sizes)
    for _ in range(2):
        images = torch.full((1, 3, 4, 4), 0.5).contiguous(memory_format=torch.channels_last)
        assert model(images).tolist() == [[24.0, -24.0]]


def test_an_ensemble_needs_two_with_known_inputs_and_one_number_of_classes() -> None:
    for teachers, combine in (
        ([fixed(1.0, 2.0)], "logits"),
        ([fixed(1.0, 2.0), replace(fixed(2.0, 1.0), input=None)], "logits"),
        ([fixed(1.0, 2.0), fixed(2.0, 1.0)], "votes"),
    ):
        with pytest.raises(UsageError):
            ensemble(teachers, combine)
    gray = ModelInput(None, Normalization((1.0,), (1.0,)), "a test")
    with pytest.raises(UsageError, match="channels"):
        ensemble([fixed(1.0, 2.0), replace(fixed(2.0, 1.0), input=gray)])
    with pytest.raises(UsageError, match="classes"):
        ensemble([fixed(1.0, 2.0), fixed(2.0, 1.0, 0.0)]).logits(torch.zeros(1, 3, 4, 4))


def test_a_member_that_returns_probabilities_is_found(
    folder: Path, spec: DataSpec, data: ImageSet, teacher_path: Path
) -> None:
    from sources.tiny import Heard

    from bancache.dumping.check_teacher import check_teacher
    from bancache.dumping.recompute import settings_of

    settings = settings_of(open_cache(folder / "a.zarr").manifest)
    known = load_teacher(teacher_path, device=CPU)
    together = ensemble([known, fixed(0.25, 0.25, 0.5)])
    with pytest.raises(UsageError, match="probabilities"):
        check_teacher(together, data, settings, device=CPU, progress=Heard())


def test_on_a_gpu_all_members_run_in_one_graph(
    folder: Path, tmp_path: Path, teacher_path: Path, other_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = pretend_to_dump_on_a_gpu(monkeypatch)
    succeed("dump", teacher_path, other_path, *SHORT, "--out", tmp_path / "c.zarr")
    assert len(replays) == 1
    torch.testing.assert_close(rows(tmp_path / "c.zarr"), rows(folder / "both.zarr"), rtol=0, atol=2e-6)


def test_a_student_of_several_is_one_generation_after_the_last_of_them(
    teacher_path: Path, other_path: Path
) -> None:
    first, other = (load_teacher(str(path), device=CPU) for path in (teacher_path, other_path))
    third = replace(other, header={**other.header, "generation": 3})
    assert [ensemble(both).header["generation"] for both in ([first, third], [third, first])] == [3, 3]


def test_the_line_of_a_dump_has_the_seed_of_its_teacher(folder: Path) -> None:
    seeds = {Path(line["out"]).name: line["seed"] for line in read_records(folder / "results.jsonl")}
    assert (seeds["a.zarr"], seeds["b.zarr"]) == (0, 1)
