"""What the documents show is true."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.tiny import dump_tiny

from bancache.models import build_model
from bancache.results import read_records
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache_cli import main
from bancache_cli.app import app
from benchmarks.readme import blocks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def between(name: str) -> str:
    """Return what the README holds between two marks."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert found is not None, name
    return found[1]


def test_every_command_that_the_readme_names_exists() -> None:
    known = {(c.callback.__name__ if c.callback else "").replace("_", "-") for c in app.registered_commands}
    named = set(re.findall(r"^ {4}bancache ([a-z-]+)", README, re.MULTILINE))
    assert named >= known - {"demo"}
    assert named <= known


def test_the_readmes_figures_are_those_of_the_result_lines() -> None:
    """`python -m benchmarks.readme` puts them there."""
    for name, block in blocks().items():
        assert between(name) == block


def test_the_readmes_loop_runs(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Python block, as it stands, on a tiny cache, lowers the loss."""
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    student = build_model("convnet-4", classes=3, channels=3, image_size=(10, 10))
    seen: list[float] = []
    names: dict[str, Any] = {
        "student": student,
        "optimizer": torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9),
    }
    watched = block.replace("batch_size=128", "batch_size=32").replace(
        "        loss.backward()", "        seen.append(loss.item())\n        loss.backward()"
    )
    assert watched.count("seen.append") == 1
    exec(watched, {**names, "seen": seen})
    assert len(seen) == 30 * 3
    assert statistics.mean(seen[-6:]) < 0.5 * statistics.mean(seen[:6])


def test_the_demo_does_all_that_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--seeds", "0"]) == 0
    shown = capsys.readouterr()
    assert (tmp_path / "demo" / "page.html").read_text().startswith("<!doctype html>")
    assert {p.name for p in (tmp_path / "demo" / "seed0").iterdir()} == {
        "gen0.pt",
        "gen0.pt.jsonl",
        "gen0.zarr",
        "gen1.pt",
        "gen1.pt.jsonl",
        "gen1.zarr",
        "gen2.pt",
        "gen2.pt.jsonl",
    }
    for word in ("baseline", "BAN-1", "BAN-2", "Ens*2"):
        assert word in shown.out
    records = read_records(tmp_path / "demo" / "results.jsonl")
    assert [r["kind"] for r in records] == ["run", "dump", "run", "dump", "run", "ensemble"]
    assert all(r["test"]["accuracy"] > 0.95 for r in records if "test" in r)
