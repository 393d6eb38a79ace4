"""The commands as people type them: what they print, and how they end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from contracts.killing import tree

from bancache_cli.app import run

SAID: dict[str, list[str]] = {"notes": [], "warnings": []}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher_path: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "gen0.zarr"
    asked = ["--teacher", str(teacher_path), "--out", str(out), "--num-views", "6", "--batch-size", "16"]
    assert run(["dump", *asked, "-q"]) == 0
    return out


def test_push_and_pull_report_what_they_did(
    tmp_path: Path, whole: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["push", str(whole), address, "-q"]) == 0
    assert address in capsys.readouterr().out
    assert run(["push", str(whole), address, "-q", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"out": address, "complete": True, "sent": 0, "kept": len(tree(whole)), "bytes": 0} | SAID
    out = tmp_path / "back.zarr"
    assert run(["pull", address, str(out), "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["complete"], said["kept"]) == (True, 2)
    assert tree(out) == tree(whole)
    assert run(["verify", str(out), "--deep", "-q"]) == 0


def test_without_obstore_the_extra_is_named(
    whole: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    assert run(["push", str(whole), address]) == 1
    assert 'pip install "bancache[s3]"' in capsys.readouterr().err
