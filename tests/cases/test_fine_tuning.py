"""A model that starts from weights that are there: a checkpoint, a file, or what a library publishes."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture
from sources.tiny import Heard

from bancache.errors import CheckpointError, MismatchError, StoppedError
from bancache.models import build_model
from bancache.models.checkpoint import load_checkpoint
from bancache.models.start import load_start
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import signals
from bancache.training import Run, TrainerOptions, run_for_labels, train
from bancache.training.build import make_model

SHUFFLENET = "torchvision:shufflenet_v2_x0_5"
HEAD = ("fc.weight", "fc.bias")
IMAGENET = (0.485, 0.456, 0.406)


def of_library(name: str = SHUFFLENET) -> dict[str, Any]:
    return {"name": name, "classes": 3, "channels": 3, "image_size": [32, 32]}


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    """The tiny data set with a fourth class."""
    path = tmp_path_factory.mktemp("four") / "four.npz"
    with np.load(npz) as arrays:
        content = {name: arrays[name] for name in arrays if name != "classes"}
    content["train_labels"] = np.where(np.arange(96) < 20, 3, content["train_labels"])
    np.savez(path, **content)
    return path


def tune(npz: Path, out: Path, weights: Path | str, *options: str) -> dict[str, Any]:
    short = ("--epochs", "1", "--batch-size", "32", "--views", "crop1-flip")
    return succeed(
        "train-teacher", "--data", f"npz:{npz}", "--out", out, "--weights", weights, *short, *options
    )


def test_a_checkpoint_goes_on_with_new_classes_a_tenth_of_the_rate_and_its_own_normalization(
    four: Path, tmp_path: Path, teacher_path: Path
) -> None:
    told = tune(four, tmp_path / "a.pt", teacher_path)
    before, after = load_checkpoint(teacher_path), load_checkpoint(tmp_path / "a.pt").header
    assert after["architecture"]["name"] == before.header["architecture"]["name"] == "convnet-4"
    assert after["architecture"]["classes"] == 4
    assert after["normalisation"] == before.header["normalisation"]
    assert after["recipe"]["lr"] == pytest.approx(0.02)
    assert after["start_weights"] == before.fingerprint
    said = " ".join(told["notes"])
    assert all(part in said for part in ("0.02", "last_layer.weight, last_layer.bias", "its checkpoint")), (
        said
    )
    assert tune(four, tmp_path / "b.pt", teacher_path, "--lr", "0.3")["weights"] != told["weights"]
    assert load_checkpoint(tmp_path / "b.pt").header["recipe"]["lr"] == 0.3


def test_before_the_first_step_all_but_the_head_is_what_the_file_holds(
    spec: DataSpec, data: ImageSet, teacher_path: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(teacher_path).state
    run = started(teacher_path, spec, data, classes=5)
    own = make_model(run, TrainerOptions(tmp_path / "a.pt", CPU)).state_dict()
    scratch = make_model(replace(run, start=None), TrainerOptions(tmp_path / "a.pt", CPU)).state_dict()
    head = [name for name in own if own[name].shape != state[name].shape]
    assert head == ["last_layer.weight", "last_layer.bias"]
    assert all(torch.equal(own[name], (scratch if name in head else state)[name]) for name in own)


def started(weights: Path, spec: DataSpec, data: ImageSet, classes: int = 3) -> Run:
    built = {**architecture(), "classes": classes}
    start = load_start(built, weights)
    return run_for_labels(built, replace(RECIPE, epochs=1), 7, spec, data, "crop1-flip", start=start)


@pytest.mark.parametrize("stopped", range(1, 6))
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    spec: DataSpec, data: ImageSet, held_out: ImageSet, teacher_path: Path, tmp_path: Path, stopped: int
) -> None:
    run = started(teacher_path, spec, data)
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "whole.pt", CPU))
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    with pytest.raises(StoppedError):
        train(run, data, held_out, options, interrupt=StopAfter(stopped))
    other = load_checkpoint(teacher_path)
    assert train(run, data, held_out, options).checkpoint.fingerprint == whole.checkpoint.fingerprint
    assert whole.checkpoint.fingerprint != other.fingerprint


def test_a_run_that_began_with_other_weights_or_none_is_refused(
    spec: DataSpec, data: ImageSet, held_out: ImageSet, teacher_path: Path, npz: Path, tmp_path: Path
) -> None:
    run, options = started(teacher_path, spec, data), TrainerOptions(tmp_path / "a.pt", CPU)
    with pytest.raises(StoppedError):
        train(run, data, held_out, options, interrupt=StopAfter(1))
    torch.save(build_model(**{**architecture(), "image_size": (10, 10)}).state_dict(), tmp_path / "other.pt")
    for others in (None, load_start(architecture(), tmp_path / "other.pt")):
        with pytest.raises(MismatchError, match="start weights"):
            train(replace(run, start=others), data, held_out, options)
    asked = ("train-teacher", "--data", f"npz:{npz}", "--out", tmp_path / "a.pt", "--model", "convnet-4")
    refuse(4, "start weights", *asked, hint="--out", keep=tmp_path)


def test_published_weights_are_read_from_where_torchvision_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    theirs = build_model(**{**of_library(), "classes": 1000, "image_size": (32, 32)}).state_dict()
    torch.save(theirs, tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth")
    heard = Heard()
    start = load_start(of_library(), "pretrained", heard)
    assert start.head == HEAD
    assert start.input is not None
    assert start.input.normalization.mean == pytest.approx([255 * mean for mean in IMAGENET])
    assert "1000 classes" in heard.notes[0]
    model = build_model(**{**of_library(), "image_size": (32, 32)})
    start.put_into(model)
    assert torch.equal(model.state_dict()["conv1.0.weight"], theirs["conv1.0.weight"])


def test_published_weights_of_timm_are_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def published(name: str, pretrained: bool = False, **more: Any) -> torch.nn.Module:
        return create(name, num_classes=7) if pretrained else create(name, **more)

    monkeypatch.setattr(timm, "create_model", published)
    start = load_start(of_library("timm:test_convnext"), "pretrained")
    assert start.head == ("head.fc.weight", "head.fc.bias")
    assert len(start.state["head.fc.bias"]) == 7


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match="no route to host") as caught:
        load_start(of_library(), "pretrained")
    assert "--weights FILE" in caught.value.hint


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").touch, ())


def test_weights_that_cannot_be_started_from_are_refused_at_once(
    npz: Path, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Runs()))
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    asked = ("train-teacher", "--data", f"npz:{npz}", "--out", tmp_path / "out.pt", "--weights")
    refuse(1, ("none.pt",), *asked, "none.pt", hint="--weights", keep=tmp_path)
    refuse(2, ("pretrained",), *asked, "pretrained", hint="--model", keep=tmp_path)
    refuse(2, ("pretrained",), *asked, "pretrained", "--model", "wrn-10-1", hint="--weights", keep=tmp_path)
    refuse(2, ("a.pth",), *asked, "a.pth", hint="--model", keep=tmp_path)
    small = (*asked[:-1], "--views", "crop1", "--model", "convnet-2", "--weights")
    refuse(1, ("a.pth", "convnet-2"), *small, "a.pth", keep=tmp_path)
    refuse(1, ("gen0.pt", "convnet-2", "shapes differ"), *small, teacher_path, keep=tmp_path)
    refuse(1, ("evil.pt",), *small, "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_head_for_other_classes_points_to_fine_tuning(
    four: Path, teacher_path: Path, tmp_path: Path
) -> None:
    asked = ("dump", "--teacher", teacher_path, "--data", f"npz:{four}", "--out", tmp_path / "a.zarr")
    refuse(2, ("3 classes", "4"), *asked, hint="train-teacher --weights")


def test_without_weights_nothing_is_recorded(spec: DataSpec, data: ImageSet) -> None:
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")
    assert "start_weights" not in run.to_dict()


# Students.


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path) -> Path:
    """A cache of the tiny teacher with one view of each image."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    succeed("dump", teacher_path, "--num-views", "1", "--out", path)
    return path


def test_a_student_goes_on_from_weights_at_a_tenth_of_the_rate_and_ends_with_the_same_bits(
    cache: Path, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own normalization and model; where the teacher's model has a name, weights in a plain file need none."""
    asked = ("train-student", "--cache", cache, "--epochs", "1", "--batch-size", "32", "--weights")
    told = succeed(*asked, teacher_path, "--out", tmp_path / "a.pt")
    found, teacher = load_checkpoint(tmp_path / "a.pt").header, load_checkpoint(teacher_path)
    assert found["recipe"]["lr"] == pytest.approx(teacher.header["recipe"]["lr"] / 10)
    assert (found["generation"], found["start_weights"]) == (1, teacher.fingerprint)
    torch.save(teacher.state, tmp_path / "plain.pth")
    assert succeed(*asked, tmp_path / "plain.pth", "--out", tmp_path / "b.pt")["weights"] == told["weights"]
    scratch = ("--lr", str(found["recipe"]["lr"]), "--out", tmp_path / "c.pt")
    assert succeed(*asked[:-1], *scratch)["weights"] != told["weights"]
    refuse(4, "start weights", *asked[:-1], "--lr", str(found["recipe"]["lr"]), "--out", tmp_path / "a.pt", hint="--out")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(signals, "interruptible", lambda: nullcontext(StopAfter(2)))
        outcome = call(*asked, teacher_path, "--out", tmp_path / "d.pt")
    assert outcome.code != 0
    assert succeed(*asked, teacher_path, "--out", tmp_path / "d.pt")["weights"] == told["weights"]


def test_the_low_rate_of_a_fine_tuned_teacher_is_said_to_a_student_from_scratch_and_kept_for_another_fine_tuning(
    four: Path, teacher_path: Path, tmp_path: Path
) -> None:
    tune(four, tmp_path / "tuned.pt", teacher_path)
    lr = load_checkpoint(tmp_path / "tuned.pt").header["recipe"]["lr"]
    succeed("dump", tmp_path / "tuned.pt", "--num-views", "1", "--out", tmp_path / "gen0.zarr")
    asked = ("train-student", tmp_path / "gen0.zarr", "--epochs", "1", "--batch-size", "32", "--out")
    (warning,) = (w for w in succeed(*asked, tmp_path / "scratch.pt")["warnings"] if "learning rate" in w)
    assert f"--lr {10 * lr:g}" in warning
    again = succeed(*asked, tmp_path / "again.pt", "--weights", teacher_path)
    assert load_checkpoint(tmp_path / "again.pt").header["recipe"]["lr"] == lr
    chosen = succeed(*asked, tmp_path / "chosen.pt", "--lr", "0.5")
    assert not any("learning rate" in text for text in again["warnings"] + chosen["warnings"])


def test_a_students_head_is_replaced_where_the_weights_are_for_other_classes(
    cache: Path, four: Path, teacher_path: Path, tmp_path: Path
) -> None:
    other = tune(four, tmp_path / "four.pt", teacher_path)
    asked = ("train-student", "--cache", cache, "--epochs", "1", "--out", tmp_path / "a.pt", "--weights")
    told = succeed(*asked, tmp_path / "four.pt")
    assert "4 classes" in " ".join(told["notes"])
    header = load_checkpoint(tmp_path / "a.pt").header
    assert (header["architecture"]["classes"], header["start_weights"]) == (3, other["weights"])
    refuse(1, ("none.pt",), *asked, "none.pt", keep=tmp_path)
    refuse(2, ("pretrained",), *asked, "pretrained", hint="--model", keep=tmp_path)


def test_a_student_that_takes_its_teachers_layers_sees_images_as_its_teacher_did(
    four: Path, npz: Path, tmp_path: Path
) -> None:
    """A first layer was trained on the normalization of the teacher's weights, which may not be that of the data."""
    name, out = "densenet-bc-10-4", tmp_path / "first.pt"
    short = ("--epochs", "1", "--batch-size", "32")
    succeed(
        "train-teacher", "--data", f"npz:{npz}", "--views", "crop1", "--model", name, "--out", out, *short
    )
    with np.load(four) as arrays:
        content = {key: arrays[key] // 2 if key.endswith("images") else arrays[key] for key in arrays}
    np.savez(dark := tmp_path / "dark.npz", **content)
    tune(dark, tmp_path / "tuned.pt", out)
    succeed("dump", tmp_path / "tuned.pt", "--num-views", "1", "--out", tmp_path / "gen0.zarr")
    header = {"tuned": load_checkpoint(tmp_path / "tuned.pt").header}
    student = ("train-student", tmp_path / "gen0.zarr", "--model", f"match-wrn-1-0.5@{name}", *short)
    for how in ("freeze", "copy", "none"):
        succeed(*student, "--share-layers", how, "--out", tmp_path / f"{how}.pt")
        header[how] = load_checkpoint(tmp_path / f"{how}.pt").header
    same = {how: found["normalisation"] == header["tuned"]["normalisation"] for how, found in header.items()}
    assert same == {"tuned": True, "freeze": True, "copy": True, "none": False}
