"""What the documents show is true."""

from __future__ import annotations

import html
import os
import re
import statistics
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.calling import call
from contracts.tiny import dump_tiny

import bancache
from bancache.models import build_model
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import defaults
from bancache.training.recipe import preset
from bancache_cli import main
from bancache_cli.app import app
from benchmarks.readme import documents
from tools import api
from tools.commands import command_table, exit_codes, options_of
from tools.marks import filled
from tools.pages import pages
from tools.transcripts import SHOWN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
WRITTEN = [
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and path.suffix in {".md", ".py", ".sh", ".yaml"}
]
# They also speak of options that are gone.
HISTORY = {"CHANGELOG.md", "log.md"}
# Options of other programs: of `python -m benchmarks.NAME`, of torchrun.
FOREIGN = {"--quick", "--save", "--only", "--paper", "--seconds", "--max-restarts"}


def test_every_command_that_the_readme_names_exists() -> None:
    known = {(c.callback.__name__ if c.callback else "").replace("_", "-") for c in app.registered_commands}
    named = set(re.findall(r"^ {4}bancache ([a-z-]+)", README, re.MULTILINE))
    assert named >= known - {"demo"}
    assert named <= known


def test_the_figures_of_documents_are_those_of_the_result_lines() -> None:
    """`python -m benchmarks.readme` puts them there."""
    for path, blocks in documents().items():
        assert filled(path.read_text(), blocks) == path.read_text(), path.name


def test_the_readme_fits_in_180_lines() -> None:
    assert README.count("\n") <= 180


def test_every_link_between_documents_leads_to_a_file() -> None:
    for path in [*WRITTEN, ROOT / "benchmarks" / "README.md"]:
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
                assert ":" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_no_committed_result_line_names_a_place_outside_its_run() -> None:
    for path in (ROOT / "benchmarks" / "results").rglob("*.jsonl"):
        assert not re.findall(r'"(?:/|[A-Za-z]:\\\\|https?:)[^"]*"', path.read_text()), path.name


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


def commands_in(text: str) -> list[tuple[str, str]]:
    """Return each command that is shown as code, and the rest of its line or of what is between backticks."""
    text = re.sub(r"\[bancache, (.*)\]", lambda found: "bancache " + found[1].replace(",", ""), text)
    text = re.sub(r" #.*", "", text.replace("\\\n", " "))
    lines = re.findall(r"^(?: {4,}|\$ | *srun | *command: )bancache ([a-z][a-z-]+)(.*)$", text, re.MULTILINE)
    return lines + re.findall(r"`bancache ([a-z][a-z-]+)([^`\n]*)`", text)


def test_the_demo_does_all_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine epochs instead of fifteen, which show each of the nine views once."""
    monkeypatch.setattr(defaults, "preset", lambda name, **asked: preset(name, **{**asked, "epochs": 9}))
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
        "views.json",
    }
    for word in ("baseline", "BAN-1", "BAN-2", "Ens*2"):
        assert word in shown.out
    records = read_records(tmp_path / "demo" / "results.jsonl")
    assert [r["kind"] for r in records] == [
        *("run", "dump", "run", "dump", "run", "ensemble", "agreement", "agreement"),
    ]
    assert all(r["test"]["accuracy"] > 0.95 for r in records if "test" in r)


def test_every_command_and_option_that_a_document_shows_exists() -> None:
    table = command_table()
    known = {name: options_of(command) for name, command in table.items()}
    anywhere: set[str] = FOREIGN.union(*known.values())
    seen: set[str] = set()
    for path in WRITTEN:
        if path.name in HISTORY:
            continue
        text = path.read_text()
        for name, rest in commands_in(text):
            assert name in known, f"{path.name}: bancache {name}"
            assert set(re.findall(r"(?<!\w)--[a-z][a-z-]*", rest)) <= known[name], (
                f"{path.name}: bancache {name}{rest}"
            )
            seen.add(name)
        if path.suffix == ".md":
            for code in re.findall(r"`[^`\n]+`", text):
                assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)) <= anywhere, (
                    f"{path.name}: {code}"
                )
    assert seen == set(table)


def test_every_python_name_that_a_document_shows_exists() -> None:
    for path in WRITTEN:
        for name in re.findall(r"`(bancache(?:\.[a-z_]+)+)(?:\(|`)", path.read_text()):
            module, _, attribute = name.rpartition(".")
            assert find_spec(name) or hasattr(import_module(module), attribute), f"{path.name}: {name}"


def test_the_exit_codes_that_documents_name_are_those_of_the_errors() -> None:
    known = {part for code in exit_codes() for part in code.split(", ")}
    assert known == {"0", "1", "2", "3", "4", "5", "6", "130", "143"}
    (listed,) = re.findall(r"^Exit codes: (.*?)\.$", README, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\b\d+\b", listed)) == known
    for path in WRITTEN:
        assert set(re.findall(r"exit(?: code|s with)? (\d+)", path.read_text())) <= known, path.name


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    """The text of each generated page, by its file."""
    return pages()


def test_the_generated_pages_say_what_the_code_says(generated: dict[Path, str]) -> None:
    """`python -m tools.pages` writes them."""
    for path, text in generated.items():
        assert path.read_text() == text, path.name


def test_every_public_name_is_described(generated: dict[Path, str]) -> None:
    assert set(bancache.__all__) - {"losses"} <= set(api.names())
    page = generated[ROOT / "docs" / "api.md"]
    for name in api.names():
        assert f"\n### {name}\n" in page
    assert (
        "open_loader(\n    path: str | os.PathLike[str] | Cache,\n    *,\n    batch_size: int = 128," in page
    )
    assert "ForwardRef" not in page


def test_every_command_has_its_help_and_example_on_the_page(generated: dict[Path, str]) -> None:
    page = generated[ROOT / "docs" / "commands.md"]
    for name, command in command_table().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"\n$ bancache {name}" in section
        for option in options_of(command) - {"--help", "-h"}:
            assert f"`{option}`" in section, f"{name} {option}"
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs-material is not installed")
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    """Without a warning; and no page asks another host for a script, a style, a font or a picture."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = sorted(tmp_path.glob("*.html"))
    assert {"index.html", "tutorial.html", "commands.html", "api.html"} <= {page.name for page in built}
    for page in built:
        assert not re.findall(r"<(?:script|link|img)[^>]*=\"?(?:https?:)?//", page.read_text()), page.name
    for name, pattern in (("loops", "examples/*.py"), ("launchers", "examples/launchers/*")):
        shown = html.unescape(re.sub(r"<[^>]+>", "", (tmp_path / f"{name}.html").read_text()))
        for program in ROOT.glob(pattern):
            assert program.read_text().strip() in shown, program.name


def masked(transcript: str) -> list[str]:
    """Return a transcript's lines, sorted, without what differs from run to run: numbers, hashes, widths."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", transcript)
    text = re.sub(r"\d[\d,]*(\.\d+)?(e[+-]\d+)?", "N", text)
    return sorted(re.sub(r"[ \u2500\u2501]+", " ", line).strip() for line in text.splitlines())


def test_the_tutorials_transcripts_are_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs instead of fifteen; every other word of every line is the same."""
    monkeypatch.chdir(tmp_path)
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    shown = SHOWN.findall(tutorial)
    assert len(shown) == 7
    for command, transcript in shown:
        shorter = ["--epochs", "2"] if command.startswith("train-teacher") else []
        outcome = call(*command.split(), *shorter)
        assert outcome.code == 0, outcome.err
        assert masked(outcome.out) == masked(transcript), command
    assert (tmp_path / "gen1.pt.jsonl").read_text().count("\n") == 2


LOOP_BLOCK = re.compile(r'^```(console|python)(?: title="(.*?)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


def test_the_page_on_loops_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands and programs in their order, in one folder; the teacher trains for two epochs instead of fifteen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    found = LOOP_BLOCK.findall((ROOT / "docs" / "loops.md").read_text())
    assert len(found) == 13
    for kind, title, text in found:
        if title:
            (tmp_path / title).write_text(text)
        elif kind == "python":
            exec(text.replace("num_workers=4", "num_workers=0"), names)
        else:
            for command in re.findall(r"^\$ bancache (.*)$", text, re.MULTILINE):
                shorter = ["--epochs", "2"] if command.startswith("train-teacher") else []
                outcome = call(*command.split(), *shorter)
                assert outcome.code == 0, outcome.err
    assert next(iter(names["batches"])).targets.shape == (128, 10)
    recipe = bancache.load_checkpoint("mean.pt").header["recipe"]
    assert recipe["targets"] == "class-mean"


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {bancache.__version__}\n" in (ROOT / "CITATION.cff").read_text()
