"""A born-again sequence that begins with a teacher that is there: seeds differ in their students alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.calling import refuse, succeed
from contracts.killing import tree

from bancache.cache.reader import open_cache
from bancache.models import build_model
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.report import generations_table, to_rows
from bancache.report.results import read_records
from bancache.system.configs import read_toml

SHORT = ("--views", "crop1-flip", "--num-views", "2", "--epochs", "1", "--batch-size", "32")
SHUFFLENET = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def asked(npz: Path) -> tuple[str, ...]:
    return ("generations", "--data", f"npz:{npz}", *SHORT)


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, asked: tuple[str, ...], teacher_path: Path
) -> dict[str, Any]:
    """What the command says of two seeds with one generation and its controls."""
    out = tmp_path_factory.mktemp("first") / "x"
    more = ("--generations", "1", "--seeds", "0,1", "--control")
    return succeed(*asked, *more, "--teacher", teacher_path, "--out", out)


def test_generation_0_is_not_trained_and_teaches_every_seed(told: dict[str, Any], teacher_path: Path) -> None:
    out, print_of = Path(told["out"]), load_checkpoint(teacher_path).fingerprint
    assert not list(out.glob("seed*/gen0.pt"))
    for seed in (0, 1):
        assert open_cache(out / f"seed{seed}" / "gen0.zarr").manifest.teacher["fingerprint"] == print_of
        (first,) = load_checkpoint(out / f"seed{seed}" / "gen1.pt").header["lineage"]
        assert first["weights"] == print_of
    students = {load_checkpoint(path).fingerprint for path in out.glob("seed*/gen*.pt")}
    assert len(students) == 2
    assert read_toml(out / "run.toml")["sequence"]["teacher"] == print_of
    header = load_checkpoint(out / "seed0" / "gen1.pt").header
    assert header["architecture"] == load_checkpoint(teacher_path).header["architecture"]


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in to_rows(generations_table(read_records(out / "results.jsonl")))}


def test_the_table_compares_with_the_teacher_and_says_so(told: dict[str, Any], teacher_path: Path) -> None:
    out, error = Path(told["out"]), succeed("evaluate", teacher_path)["ensemble"]["error"]
    rows = rows_of(out)
    assert list(rows) == ["teacher", "BAN-1"]
    assert rows["teacher"]["errors"] == [error, error]
    assert rows["BAN-1"]["difference"] == pytest.approx(sum(e - error for e in rows["BAN-1"]["errors"]) / 2)
    table, page = (out / "table.md").read_text(), (out / "page.html").read_text()
    assert "| model | loss | name | against the teacher | seeds |" in table
    assert "baseline" not in table
    assert "Against the teacher" in page
    title = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert title
    assert "teacher" in title[1]
    lines = read_records(out / "results.jsonl")
    assert {r["teacher"] for r in lines if r["kind"] == "dump"} == {"teacher"}
    assert {other["net"] for r in lines if r.get("net") == "labels-1" for other in r["with"]} == {"teacher"}


def test_it_goes_on_with_this_teacher_alone(
    told: dict[str, Any], asked: tuple[str, ...], teacher_path: Path, tmp_path: Path
) -> None:
    out = Path(told["out"])
    again: tuple[str | Path, ...] = (*asked, "--generations", "1", "--seeds", "0,1", "--out", out)
    before = {name: content for name, content in tree(out).items() if name != "page.html"}
    assert succeed(*again, "--teacher", teacher_path)["rows"] == told["rows"]
    assert {name: content for name, content in tree(out).items() if name != "page.html"} == before
    print_of = load_checkpoint(teacher_path).fingerprint
    refuse(4, ("sequence.teacher", print_of, "None"), *again, "--model", "convnet-4", hint="--out", keep=out)
    checkpoint, other = load_checkpoint(teacher_path), tmp_path / "other.pt"
    save_checkpoint(other, {name: value + 1 for name, value in checkpoint.state.items()}, checkpoint.header)
    refuse(4, ("sequence.teacher", print_of), *again, "--teacher", other, hint="--out", keep=out)
    both = ("--teacher", teacher_path, "--teacher", other)
    refuse(4, ("sequence.teacher", print_of), *again, *both, hint="--out", keep=out)


def test_students_of_an_older_generation_are_numbered_from_their_first_teacher(
    told: dict[str, Any], asked: tuple[str, ...], tmp_path: Path
) -> None:
    older = Path(told["out"]) / "seed0" / "gen1.pt"
    found = succeed(*asked, "--generations", "2", "--teacher", older, "--out", tmp_path / "x")
    assert [row["generation"] for row in found["rows"]] == [1, 2]
    assert [row["name"] for row in found["ensembles"]] == ["Ens*2"]
    assert load_checkpoint(tmp_path / "x" / "seed0" / "gen1.pt").header["generation"] == 2
    assert list(rows_of(tmp_path / "x")) == ["teacher", "BAN-1", "BAN-2", "Ens*2"]


def test_a_foreign_teacher_and_an_ensemble_begin_a_sequence_of_another_model(
    asked: tuple[str, ...], teacher_path: Path, tmp_path: Path
) -> None:
    model = build_model(SHUFFLENET, classes=3, image_size=(32, 32))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    foreign = ("--teacher", SHUFFLENET, "--weights", tmp_path / "w.pth", "--teacher-size", "32")
    of = (*asked, "--generations", "1", "--model", "convnet-2")
    found = succeed(*of, *foreign, "--size", "10", "--out", tmp_path / "x")
    manifest = open_cache(tmp_path / "x" / "seed0" / "gen0.zarr").manifest
    assert (manifest.teacher_size, manifest.teacher["path"]) == ((32, 32), SHUFFLENET)
    student = load_checkpoint(tmp_path / "x" / "seed0" / "gen1.pt").header["architecture"]
    assert (student["name"], student["image_size"], len(found["rows"])) == ("convnet-2", [10, 10], 1)
    both = ("--teacher", teacher_path, "--teacher", tmp_path / "x" / "seed0" / "gen1.pt")
    succeed(*of, *both, "--out", tmp_path / "y")
    assert len(open_cache(tmp_path / "y" / "seed0" / "gen0.zarr").manifest.teacher["members"]) == 2
    refuse(2, r"convnet-4 \+ convnet-2|convnet-2 \+ convnet-4", *asked, *both, "--out", tmp_path / "z", hint="--model")  # fmt: skip


def test_options_of_a_teacher_without_one_are_refused_at_once(asked: tuple[str, ...], tmp_path: Path) -> None:
    for option in (("--weights", "w.pth"), ("--teacher-size", "32"), ("--combine", "logits")):
        refuse(2, option[0], *asked, *option, "--out", tmp_path / "x", hint="--teacher")
    refuse(1, "none.pt", *asked, "--teacher", "none.pt", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
