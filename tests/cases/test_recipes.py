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


def test_a_sequence_that_began_without_the_settings_goes_on(npz: Path, tmp_path: Path) -> None:
    run = ("generations", "--data", f"npz:{npz}", *SHORT, "--generations", "1", "--out", tmp_path / "run")
    succeed(*run)
    assert "ema" not in (tmp_path / "run" / "run.toml").read_text()
    succeed(*run, "--ema", "0", "--optimizer", "sgd")
    assert "--out" in refuse(4, ".*recipe.ema", *run, "--ema", "0.9", keep=tmp_path / "run")
