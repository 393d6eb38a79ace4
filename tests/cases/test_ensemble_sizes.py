"""Teachers that see views at different sizes make one cache: each is given the same views at its own size."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.killing import tree
from contracts.photographs import write_photographs
from contracts.replaying import pretend_to_dump_on_a_gpu
from contracts.stored import stored
from contracts.tiny import CPU, RECIPE, architecture
from torch import nn

from bancache import dump, ensemble, open_loader
from bancache.dumping import DumpSettings
from bancache.errors import UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import Teacher, load_teacher
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_labels, train
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer, renderer_of_sizes
from bancache.views.model_input import ModelInput, Normalization
from bancache.views.several_sizes import at_size

SHORT = ("--num-views", "2", "--encoding", "float32")


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> Path:
    """A teacher that sees 12 x 12 pixels of images of 10 x 10."""
    path = tmp_path_factory.mktemp("large") / "large.pt"
    built = {**architecture("convnet-2"), "image_size": [12, 12]}
    run = run_for_labels(built, replace(RECIPE, epochs=1), 0, spec, data, "crop1-flip")
    train(run, data, held_out, TrainerOptions(path, CPU))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, large: Path) -> Path:
    """A cache of each teacher, and of both."""
    path = tmp_path_factory.mktemp("caches")
    for name, teachers in {"small": [teacher_path], "large": [large], "both": [large, teacher_path]}.items():
        succeed("dump", *teachers, *SHORT, "--out", path / f"{name}.zarr")
    return path


def rows(cache: Path) -> torch.Tensor:
    """Return the targets of two epochs in the order of seed 0."""
    loader = open_loader(cache, batch_size=96)
    parts = [batch.targets for epoch in range(2) for batch in loader.epoch(epoch)]
    return torch.cat([part for part in parts if part is not None]).double()


def test_what_is_stored_is_the_mean_of_what_each_gives_for_views_of_its_own_size(folder: Path) -> None:
    small, large, both = (rows(folder / f"{name}.zarr") for name in ("small", "large", "both"))
    assert float((small - large).abs().max()) > 0.05
    torch.testing.assert_close(both, (small + large) / 2, rtol=0, atol=2e-6)


def test_the_sizes_are_said_shown_and_bound(
    folder: Path, teacher_path: Path, large: Path, tmp_path: Path
) -> None:
    told = succeed("info", folder / "both.zarr")
    assert {each["path"]: each["size"] for each in told["teacher"]["members"]} == {
        str(teacher_path): [10, 10],
        str(large): [12, 12],
    }
    assert told["teacher_size"] == [12, 12]
    assert "12x12" in call("info", folder / "both.zarr").out
    asked = ("dump", teacher_path, large, *SHORT, "--out", folder / "both.zarr")
    assert any("10x10" in note and "12x12" in note for note in succeed(*asked)["notes"])
    refuse(4, "teacher", *asked, "--teacher-size", "12", keep=folder)
    one = succeed("dump", teacher_path, large, *SHORT, "--teacher-size", "12", "--out", tmp_path / "one.zarr")
    assert all("12x12" not in note for note in one["notes"])
    assert not any("size" in each for each in succeed("info", tmp_path / "one.zarr")["teacher"]["members"])


def test_such_a_cache_is_audited_repaired_extended_and_planned(
    folder: Path, teacher_path: Path, large: Path, tmp_path: Path
) -> None:
    cache, both = tmp_path / "c.zarr", ("--teacher", teacher_path, "--teacher", large)
    shutil.copytree(folder / "both.zarr", cache)
    assert succeed("verify", cache, "--deep", *both)["audit"]["verdict"] == "verified"
    shard = next(path for path in sorted(cache.rglob("*")) if path.is_file() and path.parent.name == "0")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    assert succeed("repair", cache)["shards"] == 1
    assert shard.read_bytes() == whole
    succeed("extend", cache, "--num-views", "3", "--out", tmp_path / "more.zarr")
    assert succeed("verify", tmp_path / "more.zarr", *both)["audit"]["verdict"] == "verified"
    told = succeed("plan", teacher_path, large, "--num-views", "2", "--num-pairs", "96")
    assert told["teacher"] == f"{teacher_path} + {large}"


def test_a_student_sees_the_largest_size_unless_it_says_another(folder: Path, tmp_path: Path) -> None:
    asked = ("train-student", "--cache", folder / "both.zarr", "--model", "convnet-2", "--epochs", "1")
    for size, more in ((12, ()), (10, ("--size", "10"))):
        succeed(*asked, *more, "--out", tmp_path / f"{size}.pt")
        built = load_checkpoint(tmp_path / f"{size}.pt").header["architecture"]
        assert built["image_size"] == [size, size]


def test_one_teacher_at_two_sizes_is_an_ensemble_too(
    spec: DataSpec, data: ImageSet, teacher_path: Path, tmp_path: Path
) -> None:
    teacher = load_teacher(teacher_path, device=CPU)
    assert teacher.input is not None
    both, out = ensemble([teacher, teacher], sizes=[(12, 12), (10, 10)]), tmp_path / "c.zarr"
    asked = DumpSettings(
        ViewSpace.parse("crop1-flip"), 2, "float32", 32, teacher.input.normalization, size=(12, 12)
    )
    dump(both, data, spec, out, asked, device=CPU)
    twice = ("--teacher", teacher_path, "--teacher", teacher_path)
    assert succeed("verify", out, "--deep", *twice)["audit"]["verdict"] == "verified"
    assert succeed("extend", out, "--num-views", "3", "--out", tmp_path / "more.zarr")


def test_a_sequence_begins_with_such_teachers_and_compares_with_them(
    npz: Path, teacher_path: Path, large: Path, tmp_path: Path
) -> None:
    asked = ("generations", "--data", f"npz:{npz}", "--teacher", teacher_path, "--teacher", large)
    short = (
        "--views",
        "crop1-flip",
        "--num-views",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "32",
        "--generations",
        "1",
    )
    out = Path(succeed(*asked, *short, "--model", "convnet-2", "--out", tmp_path / "x")["out"])
    (line,) = (each for each in read_records(out / "results.jsonl") if each["kind"] == "teacher")
    expected = succeed("evaluate", teacher_path, large)["ensemble"]
    assert {key: line["test"][key] for key in ("error", "nll")} == pytest.approx(
        {key: expected[key] for key in ("error", "nll")}, abs=1e-6
    )


def test_on_a_gpu_all_sizes_are_rendered_in_one_graph(
    folder: Path, tmp_path: Path, teacher_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = pretend_to_dump_on_a_gpu(monkeypatch)
    succeed("dump", teacher_path, large, *SHORT, "--out", tmp_path / "c.zarr")
    assert len(replays) == 1
    torch.testing.assert_close(rows(tmp_path / "c.zarr"), rows(folder / "both.zarr"), rtol=0, atol=2e-6)


NORMAL = Normalization((100.0, 90.0, 80.0), (30.0, 50.0, 70.0))
SIZES = [(24, 24), (16, 20), (24, 24)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSpec, ImageSet]:
    """Eight pictures of different sizes."""
    root = tmp_path_factory.mktemp("photographs")
    spec = DataSpec(f"folder:{write_photographs(root, train=8, test=3)}")
    return spec, spec.open("train")


@pytest.mark.parametrize("kept", ["in memory", "where they lie"])
def test_views_of_photographs_have_the_bits_that_they_have_at_one_size_alone(
    photographs: tuple[DataSpec, ImageSet], kept: str
) -> None:
    data = photographs[1] if kept == "in memory" else stored(photographs[1])[0]
    space = ViewSpace.parse("rrc-flip-mixup0.8", seed=3)
    samples = np.array([5, 0, 7, 0, 3])
    view_ids = space.view_ids(samples, np.array([1, 0, 9, 4, 2]))
    together = renderer_of_sizes(data.images, space, NORMAL, SIZES)
    whole = together.render(*together.to_device(samples, view_ids))
    batches = torch.cat([images for *_, images in together.batches(samples, view_ids, 2)])
    assert whole.shape[1:] == (6, 24, 24)
    assert torch.equal(whole, batches)
    for size in SIZES:
        alone = choose_renderer(data.images, space, NORMAL, size=size)
        expected = alone.render(*alone.to_device(samples, view_ids))
        assert torch.equal(at_size(whole, size, SIZES), expected)
        assert at_size(whole, size, SIZES).is_contiguous(memory_format=torch.channels_last)
    assert together.streams == (kept == "where they lie")  # a dump then takes all views of a picture together
    assert together.golden(3) == choose_renderer(data.images, space, NORMAL, size=(24, 24)).golden(3)


class Sums(nn.Module):
    """Gives three sums over all pixels, which depend on the size."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 3)."""
        return torch.stack([images[:, channel].sum((1, 2)) / 100 for channel in range(3)], dim=1)


def test_a_dump_of_photographs_is_the_same_from_memory_and_from_where_they_lie(
    photographs: tuple[DataSpec, ImageSet], tmp_path: Path
) -> None:
    spec, data = photographs
    space = ViewSpace.parse("rrc-flip", seed=3)
    known = ModelInput(None, NORMAL, "a test")
    each = [Teacher(Sums(), str(n), {"name": "sums"}, path="sums", input=known) for n in range(3)]
    asked = DumpSettings(space, 2, "float32", 3, NORMAL, size=(24, 24))
    for name, images in (("memory", data), ("stored", stored(data)[0])):
        dump(ensemble(each, "logits", SIZES), images, spec, tmp_path / name, asked, device=CPU)
    assert tree(tmp_path / "memory") == tree(tmp_path / "stored")
    smaller = replace(asked, size=(16, 20))
    with pytest.raises(UsageError, match=r"24x24.*16x20"):
        dump(ensemble(each, "logits", SIZES), data, spec, tmp_path / "other", smaller, device=CPU)
    assert not (tmp_path / "other").exists()
