"""A training with other optimizers, schedules and averages, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.calling import refuse, succeed

from bancache.models.checkpoint import load_checkpoint

CHANGES = {
    "--optimizer": "adamw",
    "--schedule": "cosine",
    "--warmup": 0.5,
    "--label-smoothing": 0.1,
    "--clip-grad": 1.0,
    "--ema": 0.5,
    "--lr": 0.01,
}
SHORT = ("--epochs", "2", "--batch-size", "32", "--views", "crop1-flip", "--model", "convnet-2")


def teach(npz: Path, out: Path, *options: str) -> dict[str, object]:
    """Train a teacher for two epochs, and return its recipe."""
    succeed("train-teacher", "--data", f"npz:{npz}", "--out", out, *SHORT, *options)
    return dict(load_checkpoint(out).header["recipe"])


def test_every_setting_has_an_option_and_students_follow(npz: Path, tmp_path: Path) -> None:
    options = [str(part) for pair in CHANGES.items() for part in pair]
    recipe = teach(npz, tmp_path / "gen0.pt", *options, "--weight-decay-exclude-1d")
    asked = {name.removeprefix("--").replace("-", "_"): value for name, value in CHANGES.items()}
    assert recipe.items() >= (asked | {"weight_decay_exclude_1d": True}).items()
    succeed("dump", "--teacher", tmp_path / "gen0.pt")
    succeed("train-student", "--cache", tmp_path / "gen0.zarr", "--ema", "0", "--weight-decay-all")
    student = load_checkpoint(tmp_path / "gen1.pt").header["recipe"]
    kept = {name: value for name, value in recipe.items() if name not in ("ema", "weight_decay_exclude_1d")}
    assert student == kept


@pytest.mark.parametrize("name", ["deit", "funmatch"])
def test_published_recipes_train(npz: Path, tmp_path: Path, name: str) -> None:
    """A cache for T = 2 is dumped without an option, since the teacher's recipe says so."""
    recipe = teach(npz, tmp_path / "gen0.pt", "--recipe", name, "--warmup", "1")
    assert (recipe["optimizer"], recipe["schedule"]) == ("adamw", "cosine")
    succeed("dump", "--teacher", tmp_path / "gen0.pt")
    told = succeed("train-student", "--cache", tmp_path / "gen0.zarr")
    assert told["loss"] == ("kd" if name == "funmatch" else "ban-l")


def test_a_run_with_other_settings_is_refused_and_defaults_may_be_named(npz: Path, tmp_path: Path) -> None:
    """A finished run whose recipe lacks the settings goes by what they were."""
    out = tmp_path / "gen0.pt"
    teach(npz, out)
    asked = ("train-teacher", "--data", f"npz:{npz}", "--out", out, *SHORT)
    assert not succeed(*asked, "--optimizer", "sgd", "--ema", "0", "--weight-decay-all")["trained"]
    assert "--overwrite" in refuse(4, ".*optimizer", *asked, "--optimizer", "adamw", keep=tmp_path)
    assert "--warmup" in refuse(2, "warmup 2", *asked, "--schedule", "cosine", "--warmup", "2", keep=tmp_path)


def test_another_optimizer_has_its_usual_rate_and_it_is_said(npz: Path, tmp_path: Path) -> None:
    """AdamW at SGD's 0.2 learns nothing; weights that are there are tuned at a tenth."""
    out, other = tmp_path / "gen0.pt", ("--optimizer", "adamw")
    asked = ("train-teacher", "--data", f"npz:{npz}", "--out", out, *SHORT, *other)
    (said,) = (note for note in succeed(*asked)["notes"] if "--lr" in note)
    assert "0.001" in said
    recipe = load_checkpoint(out).header["recipe"]
    assert (recipe["lr"], recipe["optimizer"]) == (1e-3, "adamw")
    assert not succeed(*asked)["trained"]
    assert teach(npz, tmp_path / "named.pt", "--recipe", "wrn", *other)["lr"] == 1e-3
    assert teach(npz, tmp_path / "deit.pt", "--recipe", "deit", "--warmup", "1", *other)["lr"] == 5e-4
    assert (
        teach(npz, tmp_path / "sgd.pt", "--recipe", "deit", "--warmup", "1", "--optimizer", "sgd")["lr"]
        == 0.1
    )
    assert teach(npz, tmp_path / "tuned.pt", "--weights", str(out), *other)["lr"] == pytest.approx(1e-4)


def test_students_of_a_teacher_with_another_optimizer_have_a_rate_of_their_own(
    npz: Path, tmp_path: Path
) -> None:
    def rate(name: str, *options: str | Path) -> float:
        succeed("train-student", "--cache", tmp_path / "tuned.zarr", "--out", tmp_path / name, *options)
        return float(load_checkpoint(tmp_path / name).header["recipe"]["lr"])

    teach(npz, tmp_path / "gen0.pt")
    teach(npz, tmp_path / "tuned.pt", "--weights", str(tmp_path / "gen0.pt"))
    succeed("dump", "--teacher", tmp_path / "tuned.pt")
    assert rate("as.pt") == pytest.approx(0.02)
    assert rate("adamw.pt", "--optimizer", "adamw") == 1e-3
    assert rate("both.pt", "--optimizer", "adamw", "--weights", tmp_path / "gen0.pt") == pytest.approx(1e-4)


def test_a_run_that_began_with_another_rate_for_its_optimizer_goes_on(npz: Path, tmp_path: Path) -> None:
    """Older versions gave AdamW the rate of the recipe, here 0.2."""
    asked = (
        "train-teacher",
        "--data",
        f"npz:{npz}",
        "--out",
        tmp_path / "gen0.pt",
        *SHORT,
        "--optimizer",
        "adamw",
    )
    succeed(*asked, "--lr", "0.2")
    told = succeed(*asked)
    assert not told["trained"]
    assert any("0.2" in note and "--lr" in note for note in told["notes"])
    run = ("generations", "--data", f"npz:{npz}", *SHORT, "--generations", "1", "--out", tmp_path / "run")
    succeed(*run, "--optimizer", "adamw", "--lr", "0.2")
    before = (tmp_path / "run" / "run.toml").read_bytes()
    succeed(*run, "--optimizer", "adamw")
    assert (tmp_path / "run" / "run.toml").read_bytes() == before


def test_a_sequence_that_began_without_the_settings_goes_on(npz: Path, tmp_path: Path) -> None:
    run = ("generations", "--data", f"npz:{npz}", *SHORT, "--generations", "1", "--out", tmp_path / "run")
    succeed(*run)
    assert "ema" not in (tmp_path / "run" / "run.toml").read_text()
    succeed(*run, "--ema", "0", "--optimizer", "sgd")
    assert "--out" in refuse(4, ".*recipe.ema", *run, "--ema", "0.9", keep=tmp_path / "run")
