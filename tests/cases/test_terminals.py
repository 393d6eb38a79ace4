"""Text that comes from a file, or is the name of one, cannot speak to the terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from pathlib import Path

import pytest
from contracts.calling import call, succeed
from contracts.hostile import reseal

from bancache_cli import console, main

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"
# Sets the clipboard; clears the screen; in eight bits; ends a line; turns the reading direction; a byte that is no UTF-8.
SPOKEN = ["\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b2J", "a\nerror: b", "\r", "\u202etxt", "\udc9b"]


def require_silent(text: str) -> None:
    assert not set(text) & set("\x1b\x07\x9b\r\u202e\udc9b")


@pytest.mark.parametrize("text", SPOKEN, ids=ascii)
def test_a_manifest_is_printed_without_its_control_characters(tmp_path: Path, text: str) -> None:
    cache = shutil.copytree(OLD / "gen0.zarr", tmp_path / "gen0.zarr")
    reseal(cache, lambda stored: stored["promise"]["teacher"]["architecture"].update(name=f"x{text}"))
    lines = len(call("info", OLD / "gen0.zarr").out.splitlines())
    outcome = call("info", cache)
    assert outcome.code == 0
    require_silent(outcome.out)
    assert len(outcome.out.splitlines()) == lines
    assert succeed("info", cache)["teacher"]["architecture"]["name"] == f"x{text}"


@pytest.mark.parametrize("text", SPOKEN, ids=ascii)
def test_the_name_of_a_file_is_printed_without_its_control_characters(tmp_path: Path, text: str) -> None:
    missing = tmp_path / f"x{text}.zarr"
    for command in ("info", "verify"):
        outcome = call(command, missing)
        require_silent(outcome.out + outcome.err)
        assert outcome.code == 3
        assert len(outcome.err.splitlines()) == 2
    copy = shutil.copytree(OLD / "gen0.zarr", missing)
    outcome = call("verify", copy)
    require_silent(outcome.out)
    assert len(outcome.out.splitlines()) == 1


def test_a_reader_that_has_gone_is_no_failure() -> None:
    """As after ``| head -1``, also for what is printed later."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone, contextlib.redirect_stdout(gone):
        assert main(["info", str(OLD / "gen0.zarr")]) == 0


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_result_that_cannot_be_printed_is_a_full_disk(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full):
        assert main(["info", str(OLD / "gen0.zarr"), *more]) == 6
    assert "no space left on device" in capsys.readouterr().err


def test_nobody_has_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """``>&-`` in a shell, and windows without a console: Python has no stdout then."""
    monkeypatch.setattr("sys.stdout", None)
    assert main(["info", str(OLD / "gen0.zarr")]) == 0


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "full")])
def test_what_cannot_be_said_ends_no_work(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log on a full disk, and a reader of progress that has gone."""

    class Deaf(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr("sys.stderr", Deaf())
    reporter = console.Reporter()
    reporter.note("one")
    with reporter.stage("two", total=1, unit="images") as stage:
        stage.log("three")
    console.show_error("four", "five", title="error:")


def test_every_way_to_the_terminal_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(SPOKEN)
    reporter = console.Reporter()
    for speak in (console.say, reporter.log, reporter.note, reporter.warn):
        speak(text)
    console.show_error(text, text, title="error:")
    console.show_table((text,), [(text,)], title=text)
    with reporter.stage(text, total=2, unit="images") as stage:
        stage.log(text)
        stage.advance(1)
    shown = capsys.readouterr()
    assert "?" in shown.out
    assert "?" in shown.err
    require_silent(shown.out + shown.err)


def test_a_name_is_neither_markup_nor_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    console.Reporter().note("[bold]:x:[/bold]")
    assert capsys.readouterr().err == "note: [bold]:x:[/bold]\n"
