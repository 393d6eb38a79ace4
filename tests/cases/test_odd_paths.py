"""A path that cannot be used is named in a sentence: a folder for a file, a pipe, too long a name, too many open files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from contracts.calling import call, refuse

from bancache.errors import DataError
from bancache.report.results import append_once
from bancache.system.configs import read_toml, write_toml

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"
STUDY = ("generations", "--data", "digits", "--limit", "48", "--model", "convnet-2", "--epochs", "1")


@pytest.mark.parametrize("name", ["run.toml", "results.jsonl"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_folder_or_a_pipe_in_the_place_of_a_studys_file_is_named(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / name).mkdir() if kind == "folder" else os.mkfifo(tmp_path / name)
    outcome = call(*STUDY, "--out", tmp_path)
    assert outcome.code in (1, 2)
    assert f"{name} is not a regular file" in outcome.err
    assert not (tmp_path / "seed0").exists()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_result_is_not_appended_to_a_folder_or_a_pipe(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "results.jsonl"
    file.mkdir() if kind == "folder" else os.mkfifo(file)
    with pytest.raises(DataError, match=r"results\.jsonl is not a regular file"):
        append_once(file, {"kind": "run", "out": "a"}, "out")


def test_a_pipe_in_the_place_of_a_record_is_no_record(tmp_path: Path) -> None:
    from contracts.small_cache import check_view, write, write_some

    path = write_some(tmp_path / "a.zarr", [])
    os.mkfifo(path / ".regions" / "000000.json")
    check_view(write(path), 0)


COMMANDS = {
    "train-teacher": ("train-teacher", "--data", "digits", "--limit", "48", "--epochs", "1", "--out"),
    "dump": ("dump", "--teacher", OLD / "gen0.pt", "--num-views", "1", "--out"),
    "train-student": ("train-student", "--cache", OLD / "gen0.zarr", "--epochs", "1", "--out"),
    "generations": (*STUDY, "--out"),
    "prune": ("prune", OLD / "gen0.zarr", "--num-views", "1", "--out"),
    "report": ("report", OLD / "run", "--out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long_is_refused(tmp_path: Path, command: str) -> None:
    refuse(2, "too long", *COMMANDS[command], tmp_path / ("x" * 300), hint="--out")


def test_a_checkpoint_whose_working_files_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    refuse(2, "too long", *COMMANDS["train-teacher"], tmp_path / ("x" * 250), hint="--out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [OSError, ImportError])
def test_a_process_without_descriptors_is_told_how_to_get_more(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    text = os.strerror(errno.EMFILE)

    def refuse_all(path: object) -> object:
        raise OSError(errno.EMFILE, text, "a.so") if kind is OSError else ImportError(f"a.so: {text}")

    monkeypatch.setattr("bancache.cache.info.describe", refuse_all)
    refuse(1, "too many open files", "info", OLD / "gen0.zarr", hint="ulimit -n")


@pytest.mark.parametrize("name", ["runs-😀", "Bilder für Zoë", 'a"b', "c:\\d"])
def test_a_path_in_a_runs_settings_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    write_toml(tmp_path / "run.toml", {"data": {"source": f"folder:{name}"}})
    assert read_toml(tmp_path / "run.toml") == {"data": {"source": f"folder:{name}"}}
