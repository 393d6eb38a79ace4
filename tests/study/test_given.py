"""Arms of a study that have a model of their own, are there already, or teach together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import refuse, succeed
from contracts.killing import tree
from contracts.tiny import CPU

from bancache.cache.reader import open_cache
from bancache.evaluation.predict import Evaluator
from bancache.models import build_model, own_input
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import build_from
from bancache.report.results import Record, read_records
from bancache.sources.image_set import ImageSet
from bancache.study.arms_file import read_study
from bancache.study.from_file import run_study
from bancache.study.running import Place
from bancache.system.configs import read_toml
from bancache.views.model_input import Normalization

ARMS = """
[arms.there]
checkpoint = "{teacher}"
[arms.narrow]
model = "convnet-2"
[arms.taught]
teacher = "there"
model = "convnet-2"
[arms.both]
members = ["there", "narrow"]
[arms.taught-by-both]
teacher = "both"
"""
FOREIGN = "torchvision:shufflenet_v2_x0_5"


def written(path: Path, npz: Path, arms: str, model: str = "convnet-4", views: str = "crop1-flip") -> Path:
    path.write_text(f"""
[study]
seeds = [0, 1]
baseline = "narrow"
views = "{views}"
num_views = 2
[data]
source = "npz:{npz}"
[model]
name = "{model}"
[recipe]
epochs = 1
batch_size = 32
{arms}""")
    return path


def run(file: Path, out: Path, seeds: tuple[int, ...] | None = None) -> list[Record]:
    return run_study(read_study(file), out, Place(device=CPU, eval_every=0), seeds)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, npz: Path, teacher_path: Path) -> Path:
    """The folder of a study of two seeds, beside its file."""
    folder = tmp_path_factory.mktemp("given")
    run(written(folder / "arms.toml", npz, ARMS.format(teacher=teacher_path)), folder / "x")
    return folder / "x"


def test_a_teacher_that_is_there_is_not_trained_and_teaches_every_seed(
    whole: Path, teacher_path: Path
) -> None:
    print_of = load_checkpoint(teacher_path).fingerprint
    assert {path.stem for path in whole.glob("seed*/*.pt")} == {"narrow", "taught", "taught-by-both"}
    for seed in (0, 1):
        taught = open_cache(whole / f"seed{seed}" / "there.zarr").manifest.teacher
        assert (taught["fingerprint"], taught["path"]) == (print_of, str(teacher_path))
    lines = [
        r for r in read_records(whole / "results.jsonl") if r.get("name") == "there" and r["kind"] == "arm"
    ]
    assert [(line["seed"], line["weights"]) for line in lines] == [(0, print_of), (1, print_of)]
    said = succeed("evaluate", teacher_path)["ensemble"]
    assert {line["test"]["nll"] for line in lines} == {said["nll"]}
    assert read_toml(whole / "arms.toml")["arms"]["there"]["fingerprint"] == print_of


def test_an_arm_may_have_a_model_of_its_own(whole: Path) -> None:
    built = {name: load_checkpoint(whole / "seed0" / f"{name}.pt").header["architecture"] for name in ("narrow", "taught", "taught-by-both")}  # fmt: skip
    assert [each["name"] for each in built.values()] == ["convnet-2", "convnet-2", "convnet-4"]
    assert {(each["classes"], *each["image_size"]) for each in built.values()} == {(3, 10, 10)}


def test_an_ensemble_teaches_by_the_mean_of_its_members(whole: Path, teacher_path: Path) -> None:
    for seed in (0, 1):
        taught = open_cache(whole / f"seed{seed}" / "both.zarr").manifest.teacher
        members = {
            load_checkpoint(p).fingerprint for p in (teacher_path, whole / f"seed{seed}" / "narrow.pt")
        }
        assert {each["fingerprint"] for each in taught["members"]} == members
        student = load_checkpoint(whole / f"seed{seed}" / "taught-by-both.pt").header
        assert set(student["lineage"][-1]["members"]) == members
    assert succeed("report", whole)["baseline"] == "narrow"


def predicted(checkpoint: Path, images: ImageSet) -> Any:
    found = load_checkpoint(checkpoint)
    normal = Normalization.from_dict(found.header["normalisation"])
    return Evaluator(images, normal, device=CPU).predict(build_from(found))


def test_divergence_from_the_teacher_is_the_mean_of_p_log_p_over_q(
    whole: Path, teacher_path: Path, held_out: ImageSet, data: ImageSet
) -> None:
    """Computed again from the predictions, of an ensemble from their mean, on test and on training images."""
    folder, lines = whole / "seed0", [r for r in read_records(whole / "results.jsonl") if r["seed"] == 0]
    for images, kind, key in ((held_out, "agreement", "net"), (data, "train", "name")):
        there, narrow = predicted(teacher_path, images), predicted(folder / "narrow.pt", images)
        for name, p in (("taught", there), ("taught-by-both", (there + narrow) / 2)):
            q = predicted(folder / f"{name}.pt", images)
            (line,) = [r for r in lines if r["kind"] == kind and r[key] == name]
            assert line["with"][0]["kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-9)
            assert line["with"][0]["share"] == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
            if kind == "train":
                assert line["train"]["error"] == pytest.approx((q.argmax(axis=1) != images.labels).mean())
                assert line["samples"] == len(images)


def test_the_same_call_adds_nothing_and_a_line_that_older_versions_wrote_is_completed(whole: Path) -> None:
    before = tree(whole)
    run(whole.parent / "arms.toml", whole)
    assert tree(whole) == before
    results = whole / "results.jsonl"
    results.write_bytes(before["results.jsonl"].replace(b', "kl": ', b', "was": '))
    run(whole.parent / "arms.toml", whole, (1,))
    added = read_records(results)[before["results.jsonl"].count(b"\n") :]
    assert [(r["kind"], r["seed"], r["net"]) for r in added] == [("agreement", 1, "taught"), ("agreement", 1, "taught-by-both")]  # fmt: skip


def test_another_teacher_under_the_same_name_is_refused(
    npz: Path, teacher_path: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(teacher_path.read_bytes())
    arms = f"[arms.there]\ncheckpoint = '{own}'\n[arms.narrow]\nmodel = 'convnet-2'"
    file = written(tmp_path / "arms.toml", npz, arms)
    run(file, tmp_path / "x", (0,))
    checkpoint = load_checkpoint(own)
    save_checkpoint(own, {name: value + 1 for name, value in checkpoint.state.items()}, checkpoint.header)
    refuse(4, ("arms.there", checkpoint.fingerprint), "study", file, "--out", tmp_path / "x", hint="--out", keep=tmp_path / "x")  # fmt: skip
    copy, changed = tmp_path / "x" / "arms.toml", load_checkpoint(own).fingerprint
    refuse(
        4, (checkpoint.fingerprint[:12], changed[:12]), "study", copy, "--out", tmp_path / "z", hint="--out"
    )
    save_checkpoint(own, checkpoint.state, {**checkpoint.header, "classes": ["one", "two", "three"]})
    refuse(4, ("from 'one' on", "from 'stripes' on"), "study", file, "--out", tmp_path / "y")
    assert not list((tmp_path / "y").iterdir())
    own.unlink()
    refuse(1, (str(own), "there"), "study", file, "--out", tmp_path / "x", keep=tmp_path / "x")


def test_weights_of_a_library_teach_with_their_own_normalization(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_input, "own_size", lambda _: (32, 32))  # 224 pixels take long
    torch.manual_seed(0)
    model = build_model(FOREIGN, classes=3, image_size=(32, 32))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    arms = f"[arms.there]\ncheckpoint = '{FOREIGN}'\nweights = '{tmp_path / 'w.pth'}'\n[arms.narrow]\nteacher = 'there'"
    run(written(tmp_path / "arms.toml", npz, arms, model="convnet-2"), tmp_path / "x", (0,))
    manifest = open_cache(tmp_path / "x" / "seed0" / "there.zarr").manifest
    assert manifest.teacher_size == (32, 32)
    assert manifest.pixels["normalisation"]["mean"] == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    student = load_checkpoint(tmp_path / "x" / "seed0" / "narrow.pt").header
    both = "[arms.own]\n[arms.narrow]\nmembers = ['there', 'own']\n[arms.taught]\nteacher = 'narrow'"
    file = written(tmp_path / "two.toml", npz, f"{arms.split('[arms.narrow]')[0]}{both}")
    run(file, tmp_path / "y", (0,))
    members = open_cache(tmp_path / "y" / "seed0" / "narrow.zarr").manifest.teacher["members"]
    assert sorted(each["size"] for each in members) == [[10, 10], [32, 32]]
    assert student["normalisation"] != manifest.pixels["normalisation"]


def test_a_match_model_takes_the_layers_of_its_densenet_unless_the_file_says_otherwise(
    npz: Path, tmp_path: Path
) -> None:
    """As train-student does by default, and the paper."""
    student = "[arms.{}]\nteacher = 'narrow'\nmodel = 'match-wrn-1-0.5@densenet-bc-10-4'\n{}\n"
    arms = "[arms.narrow]\nmodel = 'densenet-bc-10-4'\nstart = 0\n" + student.format("frozen", "") + student.format("own", "share_layers = 'none'")  # fmt: skip
    run(written(tmp_path / "arms.toml", npz, arms), tmp_path / "x", (0,))
    state = {n: load_checkpoint(tmp_path / "x" / "seed0" / f"{n}.pt") for n in ("narrow", "frozen", "own")}
    first = {
        n: next(v for k, v in c.state.items() if v.ndim == 4 and v.shape[1] == 3) for n, c in state.items()
    }
    assert torch.equal(first["frozen"], first["narrow"])
    assert not torch.equal(first["own"], first["narrow"])
    assert [state[n].header["share_ends"] for n in ("frozen", "own")] == ["freeze", "none"]


START = "[arms.a]\n[arms.b]\n[arms.c]\nmembers = ['a', 'b']\n"
WRONG: dict[str, tuple[str, str, Callable[[str], bool]]] = {
    "trained on": ("[arms.a]\ncheckpoint = 'gen0.pt'\nepochs = 3", "checkpoint", lambda hint: "checkpoint" in hint),
    "weights alone": ("[arms.a]\nweights = 'w.pth'", "checkpoint", lambda hint: "checkpoint" in hint),
    "no weights": ("[arms.a]\ncheckpoint = 'timm:resnet18'", "timm:resnet18", lambda hint: "weights" in hint),
    "weights of a checkpoint": ("[arms.a]\ncheckpoint = 'gen0.pt'\nweights = 'w.pth'", "gen0.pt", lambda hint: "weights" in hint),
    "code": ("[arms.a]\ncheckpoint = 'os:abort'", "os:abort", bool),
    "an export": ("[arms.a]\ncheckpoint = 'model.pt2'", "model.pt2", bool),
    "no such model": ("[arms.a]\nmodel = 'convnet'\n[arms.b]\nmodel = 'resnet'", "arms.b", bool),
    "layers without a teacher": ("[arms.a]\nshare_layers = 'copy'", "share_layers", lambda hint: "teacher" in hint),
    "layers of an ensemble": (f"{START}[arms.d]\nteacher = 'c'\nshare_layers = 'copy'", "ensemble", lambda hint: "share_layers" in hint),
    "an ensemble of ensembles": (f"{START}[arms.d]\nmembers = ['a', 'c']", "'c'", bool),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_arm_that_makes_no_sense_is_refused_when_the_file_is_read(case: str, tmp_path: Path) -> None:
    text, value, fits = WRONG[case]
    (file := tmp_path / "arms.toml").write_text(f"[study]\nseeds = [0]\n[data]\nsource = 'digits'\n{text}")
    assert fits(refuse(2, (str(file), value), "study", file, "--out", tmp_path / "x"))
