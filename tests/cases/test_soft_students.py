"""Students at temperatures above 1, from a cache that was made with the defaults."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from contracts.calling import refuse, succeed

from bancache import open_loader
from bancache.errors import UsageError


def test_a_default_dump_says_what_it_will_not_serve_and_the_refusal_names_the_command(
    tmp_path: Path, teacher_path: Path
) -> None:
    cache = tmp_path / "gen0.zarr"
    told = succeed("dump", teacher_path, "--num-views", "2", "--view-seed", "7", "--out", cache)
    (note,) = [note for note in told["notes"] if "temperature" in note]
    assert "--temperature 4" in note
    student = ("train-student", "--epochs", "1", "--loss", "kd", "--temperature", "4", "--cache")
    hint = refuse(2, ("root4", "4"), *student, cache, hint="--encoding root8", keep=tmp_path)
    moved = (*student, cache, "--data", "npz:none.npz")
    assert refuse(2, ("root4", "4"), *moved) == hint  # before images are looked for
    command = hint.partition("dump again: bancache ")[2].partition(";")[0]
    made = succeed(*shlex.split(command))
    assert (made["views"], made["encoding"], made["notes"]) == (2, "root8", [])
    about, before = (succeed("info", path)["view_space"] for path in (made["out"], cache))
    assert about == before
    assert succeed(*student, made["out"], "--out", tmp_path / "gen1.pt")["loss"] == "kd"


@pytest.mark.parametrize("option", [("--temperature", "4"), ("--encoding", "root4"), ("--max-kl", "1e-3")])
def test_who_chose_an_encoding_is_told_nothing(
    tmp_path: Path, teacher_path: Path, option: tuple[str, str]
) -> None:
    told = succeed("dump", teacher_path, "--num-views", "1", *option, "--out", tmp_path / "a.zarr")
    assert not [note for note in told["notes"] if "serves students" in note]


def test_the_command_names_every_teacher_of_an_ensemble(tmp_path: Path, teacher_path: Path) -> None:
    cache = tmp_path / "both.zarr"
    asked = ("dump", teacher_path, teacher_path, "--combine", "logits", "--num-views", "1", "--out", cache)
    succeed(*asked)
    with pytest.raises(UsageError) as caught:
        open_loader(cache, temperature=2.0)
    words = shlex.split(caught.value.hint.partition("bancache ")[2].partition(";")[0])
    assert words.count("--teacher") == 2
    assert words[words.index("--combine") + 1] == "logits"


def test_the_command_dumps_the_same_images_at_the_same_size_beside_caches_of_other_encodings(
    tmp_path: Path, teacher_path: Path, npz: Path
) -> None:
    """Which its teacher was not trained on."""
    cache = tmp_path / "few.zarr"
    images = ("--data", f"npz:{npz}", "--limit", "48", "--image-size", "9", "--teacher-size", "12")
    succeed("dump", teacher_path, *images, "--num-views", "1", "--out", cache)
    found = [succeed("info", cache)]
    for temperature, encoding in (("4", "root8"), ("6", "float16")):
        asked = ("train-student", "--cache", cache, "--loss", "kd", "--temperature", temperature)
        hint = refuse(2, ("root4", temperature), *asked, hint="dump again", keep=tmp_path)
        made = succeed(*shlex.split(hint.partition("dump again: bancache ")[2].partition(";")[0]))
        found.append(succeed("info", made["out"]))
        assert found[-1]["encoding"]["name"] == encoding
    assert found[0]["teacher_size"] == [12, 12]
    other = ("dump", teacher_path, *images, "--encoding", "float16", "--num-views", "1", "--out", cache)
    refuse(4, ("'root4'", "'float16'"), *other, hint="--overwrite", keep=tmp_path)
    same = ("samples", "dataset", "teacher_size", "view_space", "views")
    assert all({key: one[key] for key in same} == {key: found[0][key] for key in same} for one in found)
