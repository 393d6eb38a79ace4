"""Every command on a tiny data set: output, defaults, help."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.calling import Chain, call, succeed
from contracts.killing import tree
from contracts.tiny import images
from rich.console import Console
from sources.tiny import encode, make_shard, random_images
from sources.tiny_torchvision import make_cifar, make_fashion_mnist

from bancache.models.catalog import CatalogRow
from bancache.models.checkpoint import load_checkpoint
from bancache.models.names import PAPER_ROWS
from bancache.report.results import read_records
from bancache_cli import console, main
from bancache_cli.app import app

FIGURES = {"accuracy", "error", "nll", "ece"}
COMMANDS = sorted(
    str(command.callback.__name__).replace("_", "-")
    for command in app.registered_commands
    if command.callback
)
ANSI = re.compile(r"\x1b|\r")


# The chain, and what each of its links says with --json.


@pytest.mark.parametrize(("name", "generation"), [("gen0.pt", 0), ("gen1.pt", 1), ("gen2.pt", 2)])
def test_training_says_what_it_made_how_good_and_how_fast(chain: Chain, name: str, generation: int) -> None:
    said, stored = chain.said[name], load_checkpoint(chain / name)
    assert said["out"] == str(chain / name)
    assert said["generation"] == stored.header["generation"] == generation
    assert said["loss"] == ("ban-l" if generation else "labels")
    assert said["epochs"] == len(stored.header["history"]) == 4
    assert (
        said["parameters"]
        == said["trainable"]
        == sum(
            value.numel()
            for key, value in stored.state.items()
            if "running" not in key and "tracked" not in key
        )
    )
    assert said["test_accuracy"] == stored.header["test"]["accuracy"] > 0.5
    assert said["weights"] == stored.fingerprint
    assert said["seconds"] > 0  # rounded to milliseconds
    assert 4 * 96 / said["images_per_second"] == pytest.approx(said["seconds"], abs=6e-4)


@pytest.mark.parametrize("name", ["gen0.zarr", "gen1.zarr"])
def test_a_dump_says_what_it_made_how_large_and_how_fast(chain: Chain, name: str) -> None:
    said = chain.said[name]
    assert said["out"] == str(chain / name)
    assert (said["samples"], said["views"], said["classes"], said["encoding"]) == (96, 4, 3, "root4")
    assert said["seconds"] > 0
    assert 96 * 4 / said["images_per_second"] == pytest.approx(said["seconds"], abs=6e-4)


def test_the_chain_needs_no_more_than_a_teacher_and_then_a_cache(chain: Chain) -> None:
    """Net, recipe, views and data of a student are those of its teacher."""
    headers = [load_checkpoint(chain / f"gen{k}.pt").header for k in range(3)]
    for key in ("architecture", "data", "data_fingerprint", "views", "normalisation"):
        assert headers[0][key] == headers[1][key] == headers[2][key]
    assert headers[0]["recipe"] == headers[1]["recipe"] == headers[2]["recipe"]
    assert headers[0]["views"] == "crop1-flip"


def test_info_has_every_key_that_scripts_rely_on(chain: Chain) -> None:
    facts = succeed("info", chain / "gen0.zarr")
    assert (facts["samples"], facts["views"], facts["classes"]) == (96, 4, 3)
    assert facts["encoding"]["name"] == "root4"
    assert facts["complete"] is True
    assert facts["format_version"] == 1
    assert facts["view_space"] == {"id": "lattice-1", "pad": 1, "mode": "reflect", "flip": True, "seed": 0}
    teacher = load_checkpoint(chain / "gen0.pt")
    assert facts["teacher"]["fingerprint"] == teacher.fingerprint
    assert facts["teacher"]["architecture"]["name"] == "convnet-4"
    assert facts["teacher"]["accuracy"] == teacher.header["test"]["accuracy"]
    assert facts["dataset"]["fingerprint"] == teacher.header["data_fingerprint"]
    assert facts["fidelity"]["1"]["kl_mean"] < 1e-4
    assert facts["fidelity"]["1"]["argmax_agreement"] == 1
    assert 0.5 < facts["teacher_accuracy"] <= 1
    assert 0.5 < facts["teacher_mean_max_probability"] <= 1


def test_bytes_per_pair_are_the_bytes_on_disk_divided_by_samples_times_views(chain: Chain) -> None:
    facts = succeed("info", chain / "gen0.zarr")
    on_disk = sum(len(content) for content in tree(chain / "gen0.zarr").values())
    assert facts["bytes"] == chain.said["gen0.zarr"]["bytes"] == on_disk
    assert facts["bytes_per_pair"] == chain.said["gen0.zarr"]["bytes_per_pair"] == on_disk / (96 * 4)


def test_evaluate_tells_each_member_and_their_ensemble(chain: Chain) -> None:
    paths = [chain / f"gen{k}.pt" for k in range(3)]
    said = succeed("evaluate", *paths)
    assert set(said) == {"members", "ensemble", "samples", "chance", "notes", "warnings"}
    labels = images(seed=1, count=40).labels
    assert (said["samples"], said["chance"]) == (40, np.bincount(labels).max() / 40)
    assert [member["path"] for member in said["members"]] == [str(path) for path in paths]
    assert set(said["ensemble"]) == FIGURES
    for path, member in zip(paths, said["members"], strict=True):
        assert set(member) == FIGURES | {"path"}
        stored = load_checkpoint(path).header["test"]
        assert {name: member[name] for name in FIGURES} == {name: stored[name] for name in FIGURES}


def test_the_ensemble_of_one_net_twice_is_that_net(chain: Chain) -> None:
    said = succeed("evaluate", chain / "gen1.pt", chain / "gen1.pt")
    assert said["ensemble"] == {name: said["members"][0][name] for name in FIGURES}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("study") / "x"
    argv = (
        "--data",
        f"npz:{npz}",
        "--model",
        "convnet-4",
        "--generations",
        "2",
        "--seeds",
        "0,1",
        "--out",
        out,
    )
    return succeed("generations", *argv, "--epochs", "2", "--batch-size", "16")


def test_generations_gives_a_row_for_each_net_and_the_ensembles(study: dict[str, Any]) -> None:
    out = Path(study["out"])
    assert [(row["seed"], row["generation"]) for row in study["rows"]] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    for row in study["rows"]:
        assert set(row) >= FIGURES | {"out", "parameters", "seconds", "images_per_second"}
        assert row["accuracy"] == load_checkpoint(Path(row["out"])).header["test"]["accuracy"]
    assert [(row["seed"], row["name"]) for row in study["ensembles"]] == [(0, "Ens*2"), (1, "Ens*2")]
    for row in study["ensembles"]:
        members = [out / f"seed{row['seed']}" / f"gen{k}.pt" for k in (1, 2)]
        assert {name: row[name] for name in FIGURES} == succeed("evaluate", *members)["ensemble"]
    assert Path(study["page"]).read_text().startswith("<!doctype html>")
    assert "| convnet-4 | ban-l |" in (out / "table.md").read_text()


def test_report_writes_the_page_of_a_folder_or_a_file(tmp_path: Path, study: dict[str, Any]) -> None:
    out = Path(study["out"])
    said = succeed("report", out, "--out", tmp_path / "new" / "page.html")
    assert said == {"out": str(tmp_path / "new" / "page.html"), "notes": [], "warnings": []}
    succeed("report", out / "results.jsonl", "--out", tmp_path / "again.html")
    pages = [(tmp_path / name).read_text() for name in ("new/page.html", "again.html")]
    assert pages[0] == pages[1] == Path(study["page"]).read_text()


def test_models_counts_the_nets_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of the twenty rows; tests/models/test_catalog.py counts them all."""
    names = ("densenet-bc-90-60", "wrn-28-10", "match-wrn-1-1")
    monkeypatch.setattr("bancache.models.catalog.PAPER_ROWS", {name: PAPER_ROWS[name] for name in names})
    rows = {row["name"]: row for row in succeed("models")["models"]}
    assert tuple(rows) == names
    assert set(rows["wrn-28-10"]) >= {"name", "parameters", "trainable", "paper_millions", "gflop", "note"}
    assert rows["densenet-bc-90-60"]["parameters"] == 16_240_600
    assert rows["match-wrn-1-1"]["trainable"] == 21_068_920 - 3_240 - 75_100


# What is done already, and what is written down.


def test_what_is_complete_is_said_again_and_not_made_again(chain: Chain) -> None:
    before = tree(chain.folder)
    student = succeed("train-student", "--cache", chain / "gen0.zarr")
    cache = succeed("dump", "--teacher", chain / "gen0.pt")
    assert student == {**chain.said["gen1.pt"], "trained": False}
    complete = {
        "seconds": 0.0,
        "images_per_second": None,
        "notes": [f"{chain / 'gen0.zarr'} is complete already"],
    }
    assert cache == {**chain.said["gen0.zarr"], **complete}
    assert tree(chain.folder) == before


def test_every_piece_of_work_is_one_line_of_results(chain: Chain) -> None:
    records = read_records(chain / "results.jsonl")
    assert [(r["kind"], r["generation"]) for r in records] == [
        ("run", 0), ("dump", 0), ("run", 1), ("dump", 1), ("run", 2),
    ]  # fmt: skip
    for record in records:
        assert record["environment"]["device"] == "cpu"
        assert record["command"] == console.command_line()
        assert record["time"].endswith("+00:00")
    assert [ancestor["weights"] for ancestor in records[4]["lineage"]] == [
        records[k]["weights"] for k in (0, 2)
    ]
    assert [ancestor["cache"] for ancestor in records[4]["lineage"]] == [records[k]["digest"] for k in (1, 3)]


def test_overwrite_starts_anew_and_ends_with_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    argv = ("train-student", "--cache", chain / "gen0.zarr", "--out", tmp_path / "gen1.pt")
    assert succeed(*argv)["trained"] is True
    assert succeed(*argv)["trained"] is False
    again = succeed(*argv, "--overwrite")
    assert again["trained"] is True
    assert again["weights"] == chain.said["gen1.pt"]["weights"]
    dump = ("dump", "--teacher", chain / "gen0.pt", "--out", tmp_path / "gen0.zarr")
    succeed(*dump, "--encoding", "float16")
    succeed(*dump, "--overwrite")
    assert {k: v for k, v in tree(tmp_path / "gen0.zarr").items() if k.startswith("q/")} == {
        k: v for k, v in tree(chain / "gen0.zarr").items() if k.startswith("q/")
    }


# Defaults for each data source.


def _small_folder(root: Path) -> str:
    for split, count in (("train", 4), ("test", 2)):
        for index, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for number, image in enumerate(random_images(count, height=8, width=8, seed=index)):
                (root / split / name / f"{number}.png").write_bytes(encode(image))
    return f"folder:{root}"


def _small_parquet(root: Path) -> str:
    for split, count in (("train", 6), ("test", 3)):
        images = random_images(count, height=8, width=8)
        make_shard(root / f"{split}-00000-of-00001.parquet", images, [i % 3 for i in range(count)])
    return f"parquet:{root}"


def _small_torchvision(kind: str, root: Path, patch: pytest.MonkeyPatch) -> str:
    if kind == "fashion-mnist":
        make_fashion_mnist(root)
    else:
        make_cifar(root, kind.upper(), patch)
    return f"{kind}:{root}"


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_a_source_of_small_images_needs_no_other_option(kind: str, tmp_path: Path, npz: Path) -> None:
    """Net, recipe, epochs, views and names of files are found."""
    make = {"npz": lambda root: f"npz:{npz}", "folder": _small_folder, "parquet": _small_parquet}
    few = () if kind == "npz" else ("--epochs", "2")
    epochs = 30 if kind == "npz" else 2
    teacher = succeed("train-teacher", "--data", make[kind](tmp_path / "data"), *few)
    assert (teacher["out"], teacher["model"], teacher["epochs"]) == ("gen0.pt", "convnet-16", epochs)
    cache = succeed("dump", "--teacher", "gen0.pt")
    assert cache["out"] == "gen0.zarr"
    assert cache["views"] == min(18, epochs)
    student = succeed("train-student", "--cache", "gen0.zarr")
    assert (student["out"], student["generation"], student["epochs"]) == ("gen1.pt", 1, epochs)
    assert load_checkpoint(Path("gen1.pt")).header["views"] == "crop1-flip"


def test_digits_are_never_mirrored_and_need_no_other_option() -> None:
    """A short run, which is all that is not the default."""
    assert (
        succeed("train-teacher", "--data", "digits", "--epochs", "1", "--limit", "200")["model"]
        == "convnet-16"
    )
    header = load_checkpoint(Path("gen0.pt")).header
    assert header["views"] == "crop1"
    assert header["recipe"]["batch_size"] == 64
    assert header["classes"] == list("0123456789")


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion-mnist"])
def test_torchvisions_sets_get_a_wide_resnet_and_crops_of_an_eighth(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _small_torchvision(kind, tmp_path / "data", monkeypatch)
    said = succeed("train-teacher", "--data", source, "--epochs", "1")
    assert said["model"] == "wrn-28-2"
    header = load_checkpoint(Path("gen0.pt")).header
    assert header["views"] == ("crop3-flip" if kind == "fashion-mnist" else "crop4-flip")
    assert header["recipe"]["schedule"] == "onecycle"
    assert len(header["classes"]) == (100 if kind == "cifar100" else 10)


def test_all_views_are_every_view_there_is(chain: Chain, tmp_path: Path) -> None:
    said = succeed("dump", "--teacher", chain / "gen0.pt", "--num-views", "all", "--out", tmp_path / "a.zarr")
    assert said["views"] == 18
    assert "18 views (all) of 96 images" in call("info", tmp_path / "a.zarr").out


def test_a_limit_is_remembered(tmp_path: Path, npz: Path) -> None:
    """The student of a teacher of 50 images is shown the same 50."""
    succeed("train-teacher", "--data", f"npz:{npz}", "--limit", "50", "--epochs", "1")
    assert succeed("dump", "--teacher", "gen0.pt")["samples"] == 50
    succeed("train-student", "--cache", "gen0.zarr")
    assert read_records(Path("results.jsonl"))[-1]["limit"] == 50


def test_data_that_moved_is_named_again(tmp_path: Path, npz: Path) -> None:
    """Only where it lies has changed, so everything made from it stays good."""
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    first.write_bytes(npz.read_bytes())
    succeed("train-teacher", "--data", f"npz:{first}", "--epochs", "1")
    succeed("dump", "--teacher", "gen0.pt")
    first.rename(second)
    succeed("train-student", "--cache", "gen0.zarr", "--data", f"npz:{second}")
    assert succeed("evaluate", "gen0.pt", "gen1.pt", "--data", f"npz:{second}")["samples"] == 40


# What a person sees.


def test_a_person_reads_one_line_for_each_piece_of_work(chain: Chain, tmp_path: Path, npz: Path) -> None:
    teach = ("train-teacher", "--data", f"npz:{npz}", "--model", "convnet-4", "--epochs", "1")
    assert re.fullmatch(
        r"gen0\.pt: convnet-4, generation 0, test accuracy \d+\.\d\d% after 1 epoch, [\d.]+ s, [\d,]+ images/s\n",
        call(*teach).out,
    )
    assert call(*teach).out.endswith("(was complete already)\n")
    assert re.fullmatch(
        r"gen0\.zarr: 1 view of 96 images, root4, \d+\.\d kB, \d+\.\d bytes per pair, "
        r"mean KL \d\.\de-\d\d nats, [\d.]+ s, [\d,]+ images/s; "
        r"teacher right on \d+\.\d\d% of views, chance 36\.46%\n",
        call("dump", "--teacher", "gen0.pt").out,
    )
    assert (
        "18 views (all) of 96 images"
        in call("dump", "--teacher", "gen0.pt", "--num-views", "18", "--out", "all.zarr").out
    )


def test_a_person_reads_tables(chain: Chain, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = call("evaluate", chain / "gen1.pt", chain / "gen2.pt").out
    accuracy = load_checkpoint(chain / "gen1.pt").header["test"]["accuracy"]
    assert "40 test images" in table
    assert f"{accuracy:.2%}" in table
    assert "ensemble of 2" in table
    assert "ensemble" not in call("evaluate", chain / "gen1.pt").out
    facts = call("info", chain / "gen0.zarr").out
    assert "4 of 18 views of 96 images, 3 classes" in facts
    assert re.search(r"complete +yes", facts)
    assert re.search(r"bytes per pair, encoding root4", facts)
    assert re.search(r"KL at T = 1 +mean \d\.\de-\d\d", facts)
    row = CatalogRow("wrn-28-10", 36_536_884, 36_536_884, 36.0, 0.537, 10.4864, "a [note]")
    monkeypatch.setattr("bancache.models.catalog.catalog", lambda: [row])
    assert re.search(r"wrn-28-10\t36536884\t36536884\t36.0\t0.537\t10.4864\ta \[note\]\n", call("models").out)
    again = call("report", study["out"]).out
    assert again == f"page: {Path(study['out']) / 'page.html'}\n"


def test_generations_prints_the_papers_table(study: dict[str, Any], npz: Path) -> None:
    argv = ("--data", f"npz:{npz}", "--model", "convnet-4", "--generations", "2", "--seeds", "0,1")
    outcome = call("generations", *argv, "--out", study["out"], "--epochs", "2", "--batch-size", "16")
    assert outcome.code == 0
    assert all(title in outcome.out for title in ("baseline", "BAN-1", "BAN-2", "Ens*2", "convnet-4"))
    assert outcome.out.splitlines()[-1].startswith("page: ")


def test_progress_goes_to_stderr_as_plain_lines_and_quiet_silences_it(chain: Chain, tmp_path: Path) -> None:
    argv = ("train-student", "--cache", chain / "gen0.zarr", "--out")
    loud = call(*argv, tmp_path / "a.pt", "--json")
    lines = loud.err.splitlines()
    assert [
        line for line in lines if re.match(r"epoch \d/4: loss \d+\.\d{4}, train \d+\.\d\d%", line)
    ] == lines[1:5]
    assert re.match(
        r"train convnet-4, generation 1: 100%, 384 of 384 images in [\d.]+ s, [\d,]+ images/s", lines[5]
    )
    assert not ANSI.search(loud.err)
    quiet = call(*argv, tmp_path / "b.pt", "--json", "-q")
    assert quiet.err == ""
    assert quiet.json["weights"] == loud.json["weights"]
    chosen = ("--teacher", chain / "gen0.pt", "--encoding", "root4", "--out", tmp_path / "a.zarr")
    dumped = call("dump", *chosen)
    assert re.match(r"dump: 100%, 384 of 384 images in ", dumped.err)
    assert "images/s" in dumped.err
    assert call("dump", "--teacher", chain / "gen0.pt", "--out", tmp_path / "b.zarr", "--quiet").err == ""
    assert call("evaluate", chain / "gen0.pt", "--json", "--quiet").err == ""


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LINE_EVERY_SECONDS", 0.0)
    argv = ("--teacher", chain / "gen0.pt", "--encoding", "root4", "--out", tmp_path / "a.zarr")
    lines = call("dump", *argv).err.splitlines()
    assert re.fullmatch(r"dump: 25%, 96 of 384 images, [\d,]+ images/s, \d+ s left", lines[0])
    assert len(lines) == 5


def test_a_terminal_gets_bars_that_leave_nothing_but_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr(console, "_stderr", lambda: terminal)
    reporter = console.Reporter()
    with reporter.stage("dump [0]", total=10, unit="images", done=4) as stage:
        stage.advance(6)
        stage.log("half [way]")
        with reporter.stage("evaluate", total=1, unit="images") as inner:
            inner.advance(1)
    shown = screen.getvalue()
    assert "dump [0]" in shown
    assert "10/10" in shown
    assert "half [way]" in shown
    assert "images" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the bar is wiped


def test_sizes_are_said_in_powers_of_a_thousand() -> None:
    said = [console.bytes_text(size) for size in (0, 999, 1000, 1_234_567, 5e9, 7e13)]
    assert said == ["0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB", "70.0 TB"]


# Help, completion, odd names.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    outcome = call(command, "--help")
    assert outcome.code == 0
    assert f"Example: bancache {command}" in outcome.out
    assert f"Usage: bancache {command}" in outcome.out


def test_help_lists_every_command() -> None:
    shown = call("--help")
    assert shown.code == 0
    assert {"demo", "train-teacher", "dump", "train-student", "generations", "evaluate", "info"} < set(
        COMMANDS
    )
    assert all(re.search(rf"\b{command}\b", shown.out) for command in COMMANDS)
    assert call() == call("help") == shown
    assert call("help", "dump") == call("dump", "--help")


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", call("--version").out)
    assert call("-V") == call("--version")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bancache train-teacher --model wrn-28-", ["wrn-28-10", "wrn-28-20", "wrn-28-1", "wrn-28-2", "wrn-28-4", "wrn-28-5"]),
        ("bancache train-student --model match-wrn-4", ["match-wrn-4-0.5", "match-wrn-4-1"]),
        ("bancache generations --model densenet-bc-80-8", ["densenet-bc-80-80"]),
        ("bancache train-student --share-layers f", ["freeze"]),
        ("bancache eval", ["evaluate"]),
    ],
)  # fmt: skip
def test_the_shell_completes_models_options_and_commands(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_BANCACHE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    outcome = call()
    assert outcome.code == 0
    assert outcome.out.split() == expected


def without_torch(*commands: tuple[list[str], int], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands in a new process, which fails if one ends with another code or imports torch, zarr or Dask."""
    code = (
        "import sys; from bancache_cli import main\n"
        f"for argv, code in {list(commands)}:\n"
        "    assert main(argv) == code, argv\n"
        "    assert not {'torch', 'zarr', 'distributed'} & set(sys.modules), argv\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_and_refused_options_need_no_torch() -> None:
    done = without_torch(
        (["dump", "--help"], 0),
        (["dump"], 2),
        (["dump", "--teacher", "gen0.pt", "--max-kl", "1", "--encoding", "root4"], 2),
        (["dump", "--teacher", "gen0.pt", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2),
    )
    assert done.returncode == 0, done.stderr


def test_completion_can_be_installed_and_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    completion = {"_BANCACHE_COMPLETE": "complete_bash", "COMP_WORDS": "bancache train-teacher --model pre"}
    done = without_torch(([], 0), **completion, COMP_CWORD="3")
    expected = ["preresnet-1001", "preresnet-110", "preresnet-164"]
    assert (done.returncode, done.stdout.split()) == (0, expected), done.stderr
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))  # whoever runs this test
    assert "_BANCACHE_COMPLETE=complete_bash" in call("--show-completion").out


@pytest.mark.parametrize("name", ["two words", "größe–日本", "[red] *?'\"", "-dash", "dots.v1.2"])
def test_odd_names_of_files_are_names_like_others(name: str, tmp_path: Path, npz: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    data = folder / f"{name}.npz"
    data.write_bytes(npz.read_bytes())
    said = succeed("train-teacher", "--data", f"npz:{data}", "--epochs", "1", "--out", folder / f"{name}.pt")
    assert said["out"] == str(folder / f"{name}.pt")
    cache = succeed("dump", "--teacher", folder / f"{name}.pt")
    assert cache["out"] == str(folder / f"{name}.zarr")
    succeed("train-student", "--cache", folder / f"{name}.zarr")
    assert f"{name}.zarr\n" in call("info", folder / f"{name}.zarr").out
    assert succeed("evaluate", folder / "gen1.pt")["samples"] == 40
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [
            f"{name}.npz",
            f"{name}.pt",
            f"{name}.pt.jsonl",
            f"{name}.zarr",
            "gen1.pt",
            "gen1.pt.jsonl",
            "results.jsonl",
        ]
    )


def test_a_name_that_is_not_text_is_a_name_like_others(tmp_path: Path, npz: Path) -> None:
    """Bytes that are no UTF-8 come and go as the system's surrogates."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    out = folder / "gen0.pt"
    said = succeed("train-teacher", "--data", f"npz:{npz}", "--epochs", "1", "--out", out)
    assert said["out"] == str(out)
    assert call("train-teacher", "--data", f"npz:{npz}", "--epochs", "1", "--out", out).code == 0
    succeed("dump", "--teacher", out)
    printed = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(printed, "utf-8")):
        assert main(["evaluate", str(out)]) == 0
        sys.stdout.flush()
        assert b"caf\xe9/gen0.pt" in printed.getvalue()
