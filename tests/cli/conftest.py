"""One chain of commands, run once: a teacher, its cache, a student, its cache, the student's student."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.calling import Chain, succeed


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    teach = ("train-teacher", "--data", f"npz:{npz}", "--model", "convnet-4", "--out", folder / "gen0.pt")
    said = {
        "gen0.pt": succeed(*teach, "--epochs", "4", "--batch-size", "16"),
        "gen0.zarr": succeed("dump", "--teacher", folder / "gen0.pt"),
        "gen1.pt": succeed("train-student", "--cache", folder / "gen0.zarr"),
        "gen1.zarr": succeed("dump", "--teacher", folder / "gen1.pt"),
        "gen2.pt": succeed("train-student", "--cache", folder / "gen1.zarr"),
    }
    return Chain(folder, said)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command writes to the user's own folders, or where the tests were started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
