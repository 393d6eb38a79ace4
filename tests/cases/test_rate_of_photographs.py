"""Photographs train by default: at a rate in proportion to the batch, which runs of older versions and named recipes have not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.calling import refuse, succeed
from contracts.photographs import write_photographs
from contracts.tiny import CPU, images
from PIL import Image
from sources.tiny import Heard

from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import read_records
from bancache.study.arms_file import read_study
from bancache.study.from_file import run_study
from bancache.study.running import Place
from bancache.system.configs import read_toml

SHORT = ("--epochs", "1", "--model", "convnet-4", "--size", "16")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 pictures of three classes, each of a size of its own."""
    return write_photographs(tmp_path_factory.mktemp("rates") / "photos", train=150)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def teach(photos: Path, *options: str, out: str = "gen0.pt") -> dict[str, Any]:
    return succeed("train-teacher", "--data", f"folder:{photos}", *SHORT, "--out", out, *options)


def rate(out: str = "gen0.pt") -> tuple[int, float]:
    recipe = load_checkpoint(out).header["recipe"]
    return recipe["batch_size"], recipe["lr"]


def test_the_rate_is_in_proportion_to_the_batch_and_said(photos: Path) -> None:
    (said,) = (note for note in teach(photos)["notes"] if "--lr" in note)
    assert rate() == (75, 0.1 * 75 / 256)
    assert f"{0.1 * 75 / 256:g}" in said
    teach(photos, "--batch-size", "32", out="b.pt")
    assert rate("b.pt") == (32, 0.1 * 32 / 256)
    teach(photos, "--limit", "30", out="c.pt")
    assert rate("c.pt") == (30, 0.1 * 30 / 256)
    assert teach(photos, "--limit", "30", out="c.pt")["trained"] is False


def test_a_batch_that_memory_makes_smaller_keeps_the_proportion(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.system.memory.free_on_host", lambda: 6_000_000)
    notes = teach(photos)["notes"]
    batch, lr = rate()
    assert batch < 75
    assert lr == pytest.approx(0.1 * batch / 256)
    assert sum("learning rate" in note for note in notes) == 1
    monkeypatch.setattr("bancache.system.memory.free_on_host", lambda: 10**12)
    assert teach(photos)["trained"] is False


def test_a_rate_or_a_recipe_that_was_named_is_kept(photos: Path) -> None:
    teach(photos, "--lr", "0.3")
    teach(photos, "--recipe", "wrn", out="wrn.pt")
    assert (rate(), rate("wrn.pt")) == ((75, 0.3), (128, 0.1))


def test_a_run_that_an_older_version_began_goes_on_with_its_rate(photos: Path) -> None:
    teach(photos, "--lr", "0.2")
    assert teach(photos)["trained"] is False
    teach(photos, "--lr", "0.2", "--batch-size", "32", out="b.pt")
    assert teach(photos, "--batch-size", "32", out="b.pt")["trained"] is False
    teach(photos, "--lr", "0.3", out="c.pt")
    refuse(
        4, "0.3", "train-teacher", "--data", f"folder:{photos}", *SHORT, "--out", "c.pt", hint="--overwrite"
    )


def test_fine_tuning_has_the_same_rate_on_all_images(photos: Path) -> None:
    teach(photos)
    notes = teach(photos, "--weights", "gen0.pt", out="tuned.pt")["notes"]
    assert rate("tuned.pt")[1] == pytest.approx(0.02)
    assert sum("--lr" in note for note in notes) == 1


def test_images_of_one_small_size_keep_the_rate_of_the_recipe() -> None:
    train, test = images(seed=0, count=96), images(seed=1, count=10)
    arrays: dict[str, Any] = {"train_images": train.images, "train_labels": train.labels}
    np.savez("d.npz", **arrays, test_images=test.images, test_labels=test.labels)
    succeed("train-teacher", "--data", "npz:d.npz", "--model", "convnet-4", "--epochs", "1")
    assert rate() == (128, 0.2)


def test_large_images_of_one_size_are_photographs() -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder := Path("large", split, name)).mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (72, 66), (index, len(split), ord(name))).save(folder / f"{index}.png")
    succeed("train-teacher", "--data", "folder:large", "--model", "convnet-4", "--epochs", "1")
    assert rate() == (8, 0.1 * 8 / 256)


def test_students_train_at_the_rate_of_their_teacher(photos: Path) -> None:
    teach(photos, "--lr", "0.2")
    succeed("dump", "--teacher", "gen0.pt", "--num-views", "2")
    succeed("train-student", "--cache", "gen0.zarr")
    assert rate("gen1.pt") == (75, 0.2)
    data = ("--data", f"folder:{photos}", "--generations", "1")
    succeed("generations", *data, "--teacher", "gen0.pt", "--num-views", "2", "--out", "given")
    succeed("generations", *data, *SHORT, "--num-views", "2", "--out", "begun")
    for name, expected in (("given", 0.2), ("begun", 0.1 * 75 / 256)):
        lines = [line["recipe"] for line in read_records(Path(name, "results.jsonl")) if "recipe" in line]
        assert [recipe["lr"] for recipe in lines] == pytest.approx([expected] * len(lines))
        assert lines


def study(photos: Path, recipe: str = "") -> Path:
    path = Path("arms.toml")
    path.write_text(f"""
[study]
seeds = [0]
num_views = 2
[data]
source = "folder:{photos}"
[model]
name = "convnet-4"
image_size = [16, 16]
[recipe]
epochs = 1
{recipe}
[arms.labels]
[arms.fast]
lr = 0.4
""")
    return path


def test_a_study_has_that_rate_too_and_one_that_an_older_version_began_goes_on(photos: Path) -> None:
    def rates(out: str, recipe: str = "") -> dict[str, float]:
        lines = run_study(read_study(study(photos, recipe)), Path(out), Place(device=CPU, eval_every=0))
        return {line["name"]: line["recipe"]["lr"] for line in lines if "recipe" in line}

    expected = {"labels": pytest.approx(0.05), "fast": 0.4}
    assert rates("new") == expected
    assert read_toml(Path("new/arms.toml"))["recipe"]["lr"] == pytest.approx(0.05)
    assert rates("new") == expected
    assert rates("old", "lr = 0.2")["labels"] == 0.2
    assert rates("old")["labels"] == 0.2
    assert rates("named", 'preset = "onecycle"')["labels"] == 0.2
    adamw = 'optimizer = "adamw"'
    assert rates("other", adamw) == {"labels": 1e-3, "fast": 0.4}
    assert rates("begun", f"{adamw}\nlr = 0.2")["labels"] == 0.2
    assert rates("begun", adamw)["labels"] == 0.2


def test_another_optimizer_has_the_same_rate_on_photographs(photos: Path) -> None:
    notes = teach(photos, "--optimizer", "adamw")["notes"]
    assert rate() == (75, 1e-3)
    assert sum("--lr" in note for note in notes) == 1


def test_a_named_optimizer_that_is_the_recipes_has_one_rate_that_is_said(photos: Path) -> None:
    """The rate of a recipe for long runs is also the usual one of SGD; photographs have another."""
    asked = (
        "train-teacher",
        "--data",
        f"folder:{photos}",
        "--limit",
        "8",
        "--model",
        "convnet-4",
        "--size",
        "16",
    )
    notes = succeed(*asked, "--optimizer", "sgd", "--epochs", "60", "--out", "gen0.pt")["notes"]
    (said,) = (note for note in notes if "--lr" in note)
    assert rate() == (8, 0.05 * 8 / 256)
    assert f"{0.05 * 8 / 256:g}" in said


def test_an_arm_with_another_optimizer_and_no_rate_keeps_that_of_the_study_and_is_warned_of(
    photos: Path,
) -> None:
    """Arms differ in what the file says, and in nothing else."""
    path, heard = study(photos), Heard()
    path.write_text(path.read_text() + '[arms.other]\noptimizer = "adamw"\n')
    place = Place(device=CPU, eval_every=0, progress=heard)
    lines = run_study(read_study(path), Path("out"), place)
    assert {line["name"]: line["recipe"]["lr"] for line in lines if "recipe" in line}[
        "other"
    ] == pytest.approx(0.05)
    (warned,) = (text for text in heard.warnings if "arms.other" in text)
    assert "0.05" in warned
