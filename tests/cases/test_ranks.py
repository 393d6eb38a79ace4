"""Variables that a job left behind do not make a training wait without a word."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from contracts.calling import refuse, succeed
from sources.tiny import Heard

from bancache.system.ranks import Rank, rank_from_env, training_rank_from_env
from bancache.training import distributed

TOLD = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
VARIABLES = tuple(TOLD)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_process_that_waits_says_for_whom_and_how_to_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    monkeypatch.setattr(distributed, "_PATIENCE_SECONDS", 0.0)
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    with distributed._waiting(Rank(1, 2), heard):
        while not heard.warnings:
            time.sleep(0.01)
    assert all(text in heard.warnings[0] for text in ("RANK 1", "WORLD_SIZE 2", "localhost:29500", "unset"))


def test_a_process_whose_others_come_says_nothing() -> None:
    heard = Heard()
    with distributed._waiting(Rank(1, 2), heard):
        pass
    assert heard.warnings == []


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_is_an_unset_one(name: str, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_rank_from_env({**TOLD, name: ""}) == Rank()
    assert rank_from_env({"RANK": "", "WORLD_SIZE": "3"}) == Rank()
    for each, value in {**TOLD, name: " "}.items():
        monkeypatch.setenv(each, value)
    succeed("train-teacher", "--data", f"npz:{npz}", "--model", "convnet-4", "--epochs", "1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "two"), ("RANK", "2"), ("WORLD_SIZE", "-1"), ("MASTER_PORT", "tcp"), ("MASTER_PORT", "70000")],
)
def test_a_bad_variable_is_named_with_its_value_and_the_way_out(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each, good in {**TOLD, name: value}.items():
        monkeypatch.setenv(each, good)
    hint = refuse(2, (f"{name}={value}",), "train-teacher", "--data", "digits", "-q")
    assert all(each in hint for each in VARIABLES)
    assert "--rank" not in hint
