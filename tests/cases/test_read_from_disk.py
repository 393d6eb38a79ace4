"""What is read from disk is data: a value of a wrong type or range is named with its file, and nothing is blocked by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.calling import call, refuse
from contracts.hostile import reseal
from contracts.small_cache import write

from bancache.cache.info import describe
from bancache.cache.manifest_io import sign
from bancache.cache.reader import open_cache
from bancache.errors import CacheDamagedError, CheckpointError, DataError
from bancache.report.families import sort_families
from bancache.report.results import append_once, append_record, read_records
from bancache.system.checked import parse_toml
from bancache.system.locks import describe_holder, read_note
from bancache.training.state import read_state

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"


def _change(value: Any, where: str, new: object) -> None:
    *folders, last = where.split(".")
    for name in folders:
        value = value[name]
    value[last] = new


WRONG: dict[str, object] = {
    "promise.teacher.generation": "one",
    "promise.teacher.lineage": [{"generation": 0}],
    "promise.teacher.path": 5,
    "promise.teacher.architecture": {"name": ["convnet-2"]},
    "promise.dataset.classes": [5],
    "promise.dataset.spec": {"source": "folder:\0"},
    "promise.view_space.pad": 1 << 40,
    "promise.view_space.seed": -1,
    "promise.pixels.normalisation": {"mean": [], "std": []},
    "promise.dataset.chance": "most",
    "promise.teacher.input": {"size": None, "normalization": {"mean": "0", "std": [1]}, "origin": "timm"},
    "promise.compute.outputs": "text",
    "promise.compute.batch_size": 10**18,
    "promise.compute.precision": "int1",
    "promise.compute.device": "",
    "promise.compute.tf32": "sums",
    "promise.compute.deterministic": "no",
    "promise.created_with": {"bancache": 1},
    "summary": None,
    "summary.teacher_accuracy": 1.5,
    "summary.fidelity": {"1": {"kl_mean": -1}},
    "summary.noise_floor": [],
}


@pytest.mark.parametrize("where", WRONG)
def test_a_value_of_a_manifest_is_refused_by_its_file_and_name(tmp_path: Path, where: str) -> None:
    cache = shutil.copytree(OLD / "gen0.zarr", tmp_path / "gen0.zarr")
    reseal(cache, lambda stored: _change(stored, where, WRONG[where]))
    for read in (open_cache, describe):
        with pytest.raises(CacheDamagedError) as caught:
            read(cache)
        assert f"{cache}/manifest.json: " in str(caught.value)
        assert where.removeprefix("promise.") in str(caught.value)
    refuse(3, ("manifest.json",), "info", cache)


def test_a_teacher_may_have_a_long_path(tmp_path: Path) -> None:
    """The name of an exported model is its path as typed; a student's lineage repeats it."""
    cache, name = shutil.copytree(OLD / "gen0.zarr", tmp_path / "gen0.zarr"), "/folder" * 100 + "/net.pt2"
    ancestor = {"generation": 0, "model": name, "weights": "0" * 64}
    reseal(cache, lambda stored: _change(stored, "promise.teacher.architecture", {"name": name}))
    reseal(cache, lambda stored: _change(stored, "promise.teacher.lineage", [ancestor]))
    assert open_cache(cache).manifest.teacher["architecture"]["name"] == name


def test_a_manifest_with_arrays_that_its_encoding_does_not_make_is_refused(tmp_path: Path) -> None:
    cache = shutil.copytree(OLD / "gen0.zarr", tmp_path / "gen0.zarr")
    encoding = {"name": "float32", "id": "dense-1"}
    reseal(cache, lambda stored: stored["promise"].update(encoding=encoding))
    refuse(3, ("float32",), "verify", cache, "--deep")


def test_a_key_that_a_newer_version_added_is_kept(tmp_path: Path) -> None:
    cache = write(tmp_path / "a.zarr")
    reseal(cache, lambda stored: stored["promise"]["teacher"].update(temper={"hot": True}))
    assert open_cache(cache).manifest.teacher["temper"] == {"hot": True}


LINES = {
    "seed": 0.5,
    "generation": "0",
    "test": {"error": 2},
    "seconds": None,
    "weights": {"a": 1},
    "digest": [1],
    "images_per_second": "fast",
}


@pytest.mark.parametrize("name", LINES)
def test_a_value_of_a_results_line_is_refused_by_its_line_and_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f'{{"kind": "run"}}\n{json.dumps({"kind": "run", name: LINES[name]})}\n')
    if LINES[name] is None:
        assert len(read_records(file)) == 2
        return
    with pytest.raises(DataError, match=rf"results\.jsonl, line 2: {name}") as caught:
        read_records(file)
    assert caught.value.hint


def test_a_line_with_the_seed_of_a_model_that_an_older_version_trained_is_read(tmp_path: Path) -> None:
    """Earlier versions took --seed -1; a dump of that model writes its seed, and the report reads it."""
    run = {
        "kind": "run",
        "net": "m",
        "model": "m",
        "data": "d",
        "generation": 0,
        "seed": -1,
        "test": {"error": 0.5},
    }
    append_record(tmp_path / "results.jsonl", run)
    append_record(tmp_path / "results.jsonl", run | {"seed": 0})
    (family,) = sort_families(read_records(tmp_path / "results.jsonl"))
    assert [result.seed for result in family.columns["baseline"]] == [-1, 0]


@pytest.mark.parametrize("number", ["9" * 400, "NaN", "1e999", "-Infinity"])
def test_a_number_that_is_none_makes_no_record(tmp_path: Path, number: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f'{{"kind": "run", "epochs": {number}}}\n{{"kind": "run"}}\n')
    with pytest.raises(DataError, match="line 1"):
        read_records(file)


def test_a_results_line_torn_anywhere_loses_no_other(tmp_path: Path) -> None:
    """After a brace, inside a name, a number or a text that has braces: the next append goes on, and so does a study."""
    file = tmp_path / "results.jsonl"
    append_record(file, {"kind": "run", "n": 1})
    whole = file.read_bytes()
    append_record(
        file, {"kind": "run", "n": 2, "test": {"bins": [{"low": 0.5}, {"a": True}], "text": "{} }"}}
    )
    both = file.read_bytes()
    for cut in range(len(whole) + 1, len(both)):
        file.write_bytes(both[:cut])
        append_once(file, {"kind": "run", "n": 3}, "n")
        found = [record["n"] for record in read_records(file)]
        assert found == ([1, 2, 3] if cut == len(both) - 1 else [1, 3]), both[len(whole) : cut]


def test_a_line_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"kind": "run",, "n": 1}\n{"kind": "run"}\n')
    with pytest.raises(DataError, match="line 1"):
        read_records(tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 5", "sequence.seeds"),
        ('seeds = [0]\ngenerations = "two"', "sequence.generations"),
        ("seeds = [nan]", "nan"),
        ("seeds = [1" + "0" * 5000 + "]", "TOML"),
        ("a = " + "[" * 5000, "TOML"),
        ('seeds = [0]\n[model]\nimage_size = "large"', "model.image_size"),
    ],
)
def test_a_value_of_a_run_file_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    shutil.copytree(OLD / "run", tmp_path / "run")
    file = tmp_path / "run" / "run.toml"
    head = file.read_text().partition("[sequence]")[0]
    head = head.partition("[model]")[0] if "[model]" in text else head
    file.write_text(f"{head}[sequence]\n{text}\n")
    outcome = call(
        "generations", "--data", "digits", "--seeds", "0", "--epochs", "1", "--out", tmp_path / "run"
    )
    assert outcome.code == 1
    assert "run.toml" in outcome.err
    assert said in outcome.err


def test_a_run_file_that_was_cut_ends_alike_wherever_it_was_cut(tmp_path: Path) -> None:
    shutil.copytree(OLD / "run", tmp_path / "run")
    file = tmp_path / "run" / "run.toml"
    text = file.read_text()
    command = ("generations", "--data", "digits", "--seeds", "0", "--epochs", "1", "--out", tmp_path / "run")
    for length in range(20, text.index("[sequence]"), 23):
        file.write_text(text[:length])
        refuse(1, "run.toml", *command, hint="--out")


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 10**400, "host": "a", "since": "b"},
        {"pid": "1", "host": "a"},
        {"pid": 1, "host": ["a"]},
        {"born": -1},
        [1],
        None,
    ],
    ids=str,
)
def test_a_note_that_makes_no_sense_is_nobodys(tmp_path: Path, change: object) -> None:
    (tmp_path / "note").write_text(json.dumps(change))
    assert read_note(tmp_path / "note") == {}
    assert describe_holder(read_note(tmp_path / "note")) == "another process"


def test_a_record_whose_facts_make_no_sense_is_no_traceback(tmp_path: Path) -> None:
    """It is signed, and its files are as it says; only its sums are rubbish."""
    part = shutil.copytree(OLD / "part.zarr", tmp_path / "part.zarr")
    (file,) = (part / ".regions").glob("*.json")
    record = json.loads(file.read_text())
    del record["digest"]
    record["facts"]["tally"]["1"]["bins"] = {"-99999999": 1, "99999999": 1}
    file.write_text(json.dumps(sign(record)))
    refuse(
        3,
        ("record of shard 0", "tally"),
        *("dump", "--teacher", OLD / "gen0.pt", "--num-views", "3", "--out", part),
    )


@pytest.mark.parametrize("moment", [5, torch.zeros(3)], ids=["a number", "a wrong shape"])
def test_a_moment_of_the_optimizer_that_fits_nothing_is_refused(tmp_path: Path, moment: object) -> None:
    content = torch.load(OLD / "part.pt.resume", weights_only=True)  # noqa: TID251
    content["optimizer"]["state"][0]["momentum_buffer"] = moment
    torch.save(content, tmp_path / "part.pt.resume")
    student = ("train-student", "--cache", OLD / "gen0.zarr", "--epochs", "3", "--out", tmp_path / "part.pt")
    refuse(1, ("part.pt.resume",), *student, hint="--overwrite")


@pytest.mark.parametrize(
    "change",
    [{"epoch": -1}, {"step": "4"}, {"history": [5]}, {"seconds": float("nan")}, {"rng": 5}, {"model": []}],
    ids=str,
)
def test_a_training_state_is_refused_by_its_part(tmp_path: Path, change: dict[str, Any]) -> None:
    content = torch.load(OLD / "part.pt.resume", weights_only=True)  # noqa: TID251
    assert read_state(OLD / "part.pt.resume")["step"] == content["step"]
    torch.save({**content, **change}, tmp_path / "part.pt.resume")
    with pytest.raises(CheckpointError, match=rf"part\.pt\.resume .*{next(iter(change))}"):
        read_state(tmp_path / "part.pt.resume")


@pytest.mark.parametrize("text", [".".join("a" * 2000) + " = 1", "[" + ".".join("a" * 2000) + "]"])
def test_a_key_of_thousands_of_parts_is_not_followed(tmp_path: Path, text: str) -> None:
    (tmp_path / "arms.toml").write_text(text)
    refuse(2, ("arms.toml", "deep"), "study", tmp_path / "arms.toml", "--out", tmp_path / "out")


def test_dots_in_a_comment_are_no_parts() -> None:
    assert parse_toml("  # " + "." * 500 + "\na = 1") == {"a": 1}
