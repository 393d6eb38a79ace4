"""The command line does what shells and other command lines taught their users."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import call, refuse, succeed

from bancache.models.catalog import CatalogRow


@pytest.mark.parametrize("argv", [[], ["help"], ["-q"], ["help", "dump"]])
def test_help_is_shown_for_nothing_and_for_help(argv: list[str]) -> None:
    outcome = call(*argv)
    assert outcome.code == 0
    assert outcome == call(*argv[1:], "--help")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("train", "train-teacher or train-student"), ("evalaute", "evaluate"), ("xyz", "bancache --help")],
)
def test_a_word_that_is_no_command_names_those_that_are_near(word: str, meant: str) -> None:
    refuse(2, (f"'{word}'",), word, hint=meant)


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (("train-teacher", "--data", "digits", "--epochs", "1", "--epochs=2"), ("--epochs 1", "--epochs 2")),
        (("dump", "--teacher", "a.pt", "--out", "b", "--out", "c"), ("--out b", "--out c")),
        (("dump", "a.pt", "--teacher", "b.pt"), ("--teacher a.pt", "--teacher b.pt")),
        (("train-student", "--cache", "a", "--seed", "1", "--seed", "1"), ("--seed 1 and --seed 1",)),
        (("generations", "--out", "x", "--out", "y"), ("--out x", "--out y")),
        (("report", "x", "--out", "a", "--out", "b"), ("--out a", "--out b")),
    ],
)
def test_an_option_with_one_value_is_given_once(argv: tuple[str, ...], values: tuple[str, ...]) -> None:
    refuse(2, values, *argv, hint="once" if argv[1] != "a.pt" else "one way")


@pytest.mark.parametrize(
    "argv",
    [
        ("dump", "--teacher", ""),
        ("dump", ""),
        ("dump", "a.pt", "--views="),
        ("train-teacher", "--data", "digits", "--tensorboard", ""),
        ("generations", "--data", "digits", "--out", ""),
        ("evaluate", "a.pt", ""),
        ("info", ""),
        ("push", "a.zarr", ""),
    ],
)
def test_an_empty_value_is_refused(argv: tuple[str, ...]) -> None:
    name = argv[-2] if argv[-2].startswith("--") else "--views" if argv[-1] else ""
    refuse(2, (name, "empty"), *argv, hint="variable")


def test_a_flag_may_be_given_twice() -> None:
    assert call("info", "none.zarr", "-q", "-q").code == 3


@pytest.mark.parametrize("command", ["dump", "plan"])
def test_a_teacher_may_be_given_by_its_place(command: str, tmp_path: Path) -> None:
    file = tmp_path / "none.pt"
    assert call(command, file) == call(command, "--teacher", file)
    assert call(command, "--views", "flip", file).code == call(command, file).code == 1
    refuse(2, ("--teacher",), command, hint=f"bancache {command} --help")


@pytest.mark.parametrize("command", ["train-student", "bench"])
def test_a_cache_may_be_given_by_its_place(command: str, tmp_path: Path) -> None:
    refuse(3, ("none.zarr",), command, tmp_path / "none.zarr")
    assert call(command, tmp_path / "none.zarr") == call(command, "--cache", tmp_path / "none.zarr")


def test_the_users_folder_is_found_where_the_shell_did_not_expand_it(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d.npz").write_bytes(npz.read_bytes())
    teach = (
        "train-teacher",
        "--data",
        "npz:~/d.npz",
        "--model",
        "convnet-4",
        "--epochs",
        "1",
        "--out",
        "~/gen0.pt",
    )
    assert succeed(*teach)["out"] == str(tmp_path / "gen0.pt")
    assert succeed("dump", "~/gen0.pt", "--out", "~/a.zarr", "--num-views", "1")["out"] == str(
        tmp_path / "a.zarr"
    )
    assert succeed("info", "~/a.zarr")["path"] == str(tmp_path / "a.zarr")
    assert succeed("evaluate", "~/gen0.pt")["members"][0]["path"] == str(tmp_path / "gen0.pt")
    refuse(3, ("~nobody-here",), "info", "~nobody-here/a.zarr")


def test_quiet_and_json_may_come_before_the_command(tmp_path: Path) -> None:
    before = call("-q", "--json", "info", tmp_path / "none.zarr")
    assert before == call("info", tmp_path / "none.zarr", "-q", "--json")
    assert before.json["exit_code"] == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train-student --loss ", ["ban-l", "ban", "kd", "cwtm", "dkpp"]),
        ("train-teacher --recipe o", ["onecycle"]),
        ("dump --encoding root8", ["root8"]),
        ("dump --views crop4-", ["crop4-flip", "crop4-zero-flip"]),
    ],
)
def test_the_shell_completes_values(words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BANCACHE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"bancache {words}")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert call().out.split() == expected


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    row: tuple[Any, ...] = (
        "densenet-bc-112-33",
        6_360_761,
        6_360_761,
        6.3,
        0.061,
        4.7737,
        "also written [116-33] " * 5,
    )
    monkeypatch.setattr("bancache.models.catalog.catalog", lambda: [CatalogRow(*row)])


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize("width", [80, 50])
def test_models_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with contextlib.redirect_stdout(screen := Terminal()):
        from bancache_cli import main

        assert main(["models"]) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.split() == ["densenet-bc-112-33", "6.36", "6.3", "4.77"] for line in lines)


@pytest.mark.usefixtures("catalog")
def test_models_are_separated_by_tabs_in_a_file() -> None:
    titles, row = (line.split("\t") for line in call("models").out.splitlines())
    assert dict(zip(titles, row, strict=True))["parameters"] == "6360761"


def test_tables_in_files_have_no_padding(capsys: pytest.CaptureFixture[str]) -> None:
    from bancache_cli import console

    console.show_table(("a", "b"), [("x", "a longer text"), ("y", "z")], left=2, box=None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert not any(line.endswith(" ") for line in lines)
